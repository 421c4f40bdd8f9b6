output "address" {
  description = "URL for clients."
  value       = google_compute_address.gateways.address
}
