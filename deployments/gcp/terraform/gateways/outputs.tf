output "address" {
  description = "Where clients connect to."
  value       = google_compute_address.gateways.address
}
