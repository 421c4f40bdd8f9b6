# The rules of scripts/gcp-provision.sh, with the same names.

resource "google_compute_firewall" "operators" {
  name          = "odin-allow-operators"
  network       = var.network
  source_ranges = var.operator_ranges
  target_tags   = [var.backend_tag]

  allow {
    protocol = "tcp"
    ports    = [var.grafana_port, var.console_port]
  }
}

# Ranges or tags: one of them is sufficient.
resource "google_compute_firewall" "publisher" {
  name          = "odin-allow-publisher"
  network       = var.network
  source_ranges = var.operator_ranges
  source_tags   = [var.loadtest_tag]
  target_tags   = [var.backend_tag]

  allow {
    protocol = "tcp"
    ports    = [var.publisher_port]
  }
}

resource "google_compute_firewall" "gateways" {
  name        = "odin-allow-gateways"
  network     = var.network
  source_tags = [var.ws_tag]
  target_tags = [var.backend_tag]

  allow {
    protocol = "tcp"
    ports    = [var.kafka_port, var.loki_port]
  }
}

# A passthrough load balancer keeps the client's address in the packets, so the rule applies to client addresses.
resource "google_compute_firewall" "clients" {
  name          = "odin-allow-clients"
  network       = var.network
  source_ranges = var.client_ranges
  target_tags   = [var.ws_tag]

  allow {
    protocol = "tcp"
    ports    = [var.ws_port]
  }
}

resource "google_compute_firewall" "health_checks" {
  name          = "odin-allow-health-checks"
  network       = var.network
  source_ranges = var.health_check_ranges
  target_tags   = [var.ws_tag]

  allow {
    protocol = "tcp"
    ports    = [var.ws_port]
  }
}

resource "google_compute_firewall" "scrapes" {
  name        = "odin-allow-scrapes"
  network     = var.network
  source_tags = [var.backend_tag, var.loadtest_tag]
  target_tags = [var.ws_tag]

  allow {
    protocol = "tcp"
    ports    = [var.ws_port]
  }
}
