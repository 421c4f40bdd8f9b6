# The hosts: a template, a group over the region's zones, and the autoscaler.

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

  # Each host has an external address for pulling images; with Cloud NAT it needs none. Clients connect through the load balancer.
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

  # Uses /health/live, not /health/ready: a gateway that drains or waits for Kafka must not be replaced.
  auto_healing_policies {
    health_check      = google_compute_health_check.live.id
    initial_delay_sec = 600
  }

  # New hosts start first, then the old ones drain. Hosts are not moved to balance the zones, because they have sessions.
  update_policy {
    type                         = "PROACTIVE"
    minimal_action               = "REPLACE"
    replacement_method           = "SUBSTITUTE"
    instance_redistribution_type = "NONE"
    max_surge_fixed              = length(data.google_compute_zones.region.names)
    max_unavailable_fixed        = 0
  }
}

# The Ops Agent of each host writes the gateway's metrics in the format of Managed Service for Prometheus. Their resource is not
# gce_instance, so they count for the group: the autoscaler adds all series that match the filter, one for each gateway and shard, and
# divides by the intended number of sessions per gateway.
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

    # The clients of each removed host must reconnect: remove one at a time, and not for a short drop in load.
    scale_in_control {
      time_window_sec = 1800
      max_scaled_in_replicas {
        fixed = 1
      }
    }
  }
}
