# The gateways of each region. All of them read every partition of the same broker, so each can serve every client.

locals {
  folder = "deployments/gcp/distributed/ws-server"

  # The files of this repository that a gateway's host needs. Links are followed.
  files = concat(
    [for name in ["docker-compose.yml", ".env.production", "config.alloy"] : "${local.folder}/${name}"],
    ["deployments/seccomp/odin-gateway.json", "scripts/host-tune.sh", "scripts/gcp/registry-login.sh"],
    [for name in fileset(local.source, "scripts/host-tune/*") : name],
  )
}

module "gateways" {
  source   = "./gateways"
  for_each = var.regions

  region                  = each.key
  gateways_min            = each.value.gateways_min
  gateways_max            = each.value.gateways_max
  name                    = var.ws_instance
  machine_type            = var.ws_machine_type
  disk_gb                 = var.ws_disk_gb
  tag                     = var.ws_tag
  port                    = var.ws_port
  network                 = var.network
  image                   = local.image
  images                  = local.images
  gateway_tag             = var.gateway_tag
  service_account         = google_service_account.host.email
  backend_address         = google_compute_instance.backend.network_interface[0].network_ip
  connections_per_gateway = var.connections_per_gateway
  draining_s              = var.draining_s
  startup_script          = file("${local.source}/scripts/gcp/startup.sh")
  files                   = { for name in local.files : name => file("${local.source}/${name}") }

  # A host pulls the image at its first boot and needs the permission by then.
  depends_on = [google_artifact_registry_repository_iam_member.host]
}
