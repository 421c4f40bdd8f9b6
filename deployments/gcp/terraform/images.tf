# The registry of the images, and the account that may read it. scripts/gcp-provision.sh creates the registry, because it must exist
# before the first host: scripts/gcp-deploy.sh images fills it.

data "google_artifact_registry_repository" "images" {
  location      = var.images_region
  repository_id = var.images_repository
}

locals {
  # The prefix of the image names.
  images = "${var.images_region}-docker.pkg.dev/${var.project}/${var.images_repository}/"
}

resource "google_service_account" "host" {
  account_id   = var.host_account
  display_name = "The hosts: may read the images, write metrics and logs"
}

resource "google_artifact_registry_repository_iam_member" "host" {
  location   = data.google_artifact_registry_repository.images.location
  repository = data.google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.host.member
}

resource "google_project_iam_member" "host" {
  for_each = toset(["roles/monitoring.metricWriter", "roles/logging.logWriter"])
  project  = var.project
  role     = each.value
  member   = google_service_account.host.member
}
