# The hosts: a template, a group over the region's zones, and what makes the group grow.

locals {
  # The label `job` of every metric of this region's gateways.
  job = "${var.name}-${var.region}"
}

data "google_compute_zones" "region" {
  region = var.region
}

resource "google_compute_region_instance_template" "gateway" {
  name_prefix  = "${var.name}-"
  region       = var.region
  machine_type = var.machine_type
  tags         = [var.tag]

  disk {
    source_image = var.image
    boot         = true
    auto_delete  = true
    disk_size_gb = var.disk_gb
    disk_type    = "pd-balanced"
  }

  # An address of its own to pull images with; a network with Cloud NAT can do without. Clients come through the load balancer.
  network_interface {
    network = var.network
    access_config {}
  }

  service_account {
    email  = var.service_account
    scopes = ["cloud-platform"]
  }

  metadata = {
    startup-script       = "${var.startup_script}\n${file("${path.module}/start-gateway.sh")}"
    odin-files           = jsonencode(var.files)
    odin-images          = var.images
    odin-tag             = var.gateway_tag
    odin-backend-address = var.backend_address
    odin-port            = var.port
    odin-job             = local.job
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "google_compute_region_instance_group_manager" "gateways" {
  name               = var.name
  region             = var.region
  base_instance_name = var.name

  version {
    instance_template = google_compute_region_instance_template.gateway.self_link
  }

  # Alive, not ready: a gateway that drains, or that waits for Kafka, is not to be killed for it.
  auto_healing_policies {
    health_check      = google_compute_health_check.live.id
    initial_delay_sec = 600
  }

  # New hosts first, then the old ones go, each with its drain. No host is moved for the sake of symmetry: it has sessions.
  update_policy {
    type                         = "PROACTIVE"
    minimal_action               = "REPLACE"
    replacement_method           = "SUBSTITUTE"
    instance_redistribution_type = "NONE"
    max_surge_fixed              = length(data.google_compute_zones.region.names)
    max_unavailable_fixed        = 0
  }
}

# The Ops Agent of each host writes the gateway's metrics as Managed Service for Prometheus has them. Their resource is no
# gce_instance, so that they count as the group's: the autoscaler adds up all series that the filter lets through, which is one for
# each gateway and shard, and divides by what one gateway is to carry.
resource "google_compute_region_autoscaler" "gateways" {
  name   = var.name
  region = var.region
  target = google_compute_region_instance_group_manager.gateways.id

  autoscaling_policy {
    min_replicas    = var.gateways_min
    max_replicas    = var.gateways_max
    cooldown_period = 300

    metric {
      name                       = "prometheus.googleapis.com/ws_connections_active/gauge"
      filter                     = "resource.type = \"prometheus_target\" AND resource.labels.job = \"${local.job}\""
      single_instance_assignment = var.connections_per_gateway
    }

    # Every host that goes makes its clients connect anew: one at a time, and not for a short lull.
    scale_in_control {
      time_window_sec = 1800
      max_scaled_in_replicas {
        fixed = 1
      }
    }
  }
}
