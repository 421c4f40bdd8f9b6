# A regional passthrough load balancer: packets go from the client to the gateway and straight back, with the client's address. No
# proxy stands in the path, so that nothing but the two ends decides how long a socket lives.

resource "google_compute_address" "gateways" {
  name   = "${var.name}-ip"
  region = var.region
}

# Whether new sessions come here. 503 while the history is read, while Kafka is away at the start, and from SIGTERM on.
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

# Whether the host is to be replaced: a minute without an answer. A group takes a global one for this.
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

# Affinity NONE is by the connection: each goes where the hash of its addresses and ports says, and stays there, also when its
# gateway is no longer ready. The balancer forgets a connection after 60 s without a packet; the gateway pings each 27 s.
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
