output "gateway_urls" {
  description = "URLs for clients, by region."
  value       = { for region, gateways in module.gateways : region => "ws://${gateways.address}:${var.ws_port}/ws" }
}

output "backend_address" {
  description = "Address of the backend for operators."
  value       = google_compute_instance.backend.network_interface[0].access_config[0].nat_ip
}

output "backend_internal_address" {
  description = "Address of the broker for gateways."
  value       = google_compute_instance.backend.network_interface[0].network_ip
}
