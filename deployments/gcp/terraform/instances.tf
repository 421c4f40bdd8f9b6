# The single instances. scripts/gcp-deploy.sh deploys to them.

locals {
  image  = "projects/${var.image_project}/global/images/family/${var.image_family}"
  source = "${path.module}/../../.."
}

resource "google_compute_instance" "backend" {
  name         = var.backend_instance
  zone         = var.zone
  machine_type = var.backend_machine_type
  tags         = [var.backend_tag]

  boot_disk {
    initialize_params {
      image = local.image
      size  = var.backend_disk_gb
      type  = "pd-balanced"
    }
  }

  network_interface {
    network = var.network
    access_config {}
  }

  # For pulling images.
  service_account {
    email  = google_service_account.host.email
    scopes = ["cloud-platform"]
  }

  metadata = {
    startup-script = file("${local.source}/scripts/gcp/startup.sh")
  }

  # A new image of the family must not replace the broker's disk.
  lifecycle {
    ignore_changes = [boot_disk[0].initialize_params[0].image]
  }
}

resource "google_compute_instance" "loadtest" {
  count        = var.loadtest ? 1 : 0
  name         = var.loadtest_instance
  zone         = var.zone
  machine_type = var.loadtest_machine_type
  tags         = [var.loadtest_tag]

  boot_disk {
    initialize_params {
      image = local.image
      size  = var.loadtest_disk_gb
      type  = "pd-balanced"
    }
  }

  network_interface {
    network = var.network
    access_config {}
  }

  metadata = {
    startup-script = file("${local.source}/scripts/gcp/startup.sh")
  }

  lifecycle {
    ignore_changes = [boot_disk[0].initialize_params[0].image]
  }
}
