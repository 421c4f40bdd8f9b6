# A regional passthrough load balancer: packets go from the client to the gateway and directly back, with the client's address. Without
# a proxy in the path, only the client and the gateway decide how long a connection lasts.

resource "google_compute_address" "gateways" {
  name   = "${var.name}-ip"
  region = var.region
}

# Decides about new sessions. 503 while the history is read, while Kafka cannot be reached at the start, and from SIGTERM on.
resource "google_compute_region_health_check" "ready" {
  name                = "${var.name}-ready"
  region              = var.region
  check_interval_sec  = 5
  timeout_sec         = 5
  healthy_threshold   = 2
  unhealthy_threshold = 3

  http_health_check {
    port         = var.port
    request_path = "/health/ready"
  }
}

# Decides whether to replace the host: after a minute without an answer. A group needs a global check for this.
resource "google_compute_health_check" "live" {
  name                = "${var.name}-${var.region}-live"
  check_interval_sec  = 10
  timeout_sec         = 5
  healthy_threshold   = 1
  unhealthy_threshold = 6

  http_health_check {
    port         = var.port
    request_path = "/health/live"
  }
}

# Affinity NONE is per connection: the hash of its addresses and ports selects the gateway, and the connection stays there even when the
# gateway is no longer ready. The balancer forgets a connection after 60 s without a packet; the gateway pings every 27 s.
resource "google_compute_region_backend_service" "gateways" {
  name                            = var.name
  region                          = var.region
  protocol                        = "TCP"
  load_balancing_scheme           = "EXTERNAL"
  session_affinity                = "NONE"
  connection_draining_timeout_sec = var.draining_s
  health_checks                   = [google_compute_region_health_check.ready.id]

  backend {
    group          = google_compute_region_instance_group_manager.gateways.instance_group
    balancing_mode = "CONNECTION"
  }
}

resource "google_compute_forwarding_rule" "gateways" {
  name                  = var.name
  region                = var.region
  load_balancing_scheme = "EXTERNAL"
  ip_protocol           = "TCP"
  ip_address            = google_compute_address.gateways.address
  ports                 = [var.port]
  backend_service       = google_compute_region_backend_service.gateways.id
}
