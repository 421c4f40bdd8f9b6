variable "project" {
  description = "The Google Cloud project."
  type        = string
}

variable "regions" {
  description = "The regions of the gateways, with the minimum and maximum number of gateways. Each region has its own load balancer and address."
  type = map(object({
    gateways_min = optional(number, 1)
    gateways_max = optional(number, 4)
  }))
  default = {
    us-central1 = {}
  }

  validation {
    condition     = alltrue([for it in values(var.regions) : it.gateways_min >= 1 && it.gateways_max >= it.gateways_min])
    error_message = "Each region needs gateways_min >= 1 and gateways_max >= gateways_min."
  }
}

variable "gateway_tag" {
  description = "The tag of the gateway's image, which is its commit: scripts/gcp-deploy.sh images builds the image and prints the tag."
  type        = string

  validation {
    condition     = can(regex("^[\\w.-]+$", var.gateway_tag)) && var.gateway_tag != "latest"
    error_message = "Name one version, the tag alone: with latest, two gateways of one group may differ."
  }
}

variable "operator_ranges" {
  description = "The addresses that may reach Grafana, the console and the publisher, which have weak passwords or none: [\"203.0.113.7/32\"]"
  type        = list(string)

  validation {
    condition     = length(var.operator_ranges) > 0 && alltrue([for range in var.operator_ranges : !endswith(range, "/0")])
    error_message = "Name your own ranges; a range of /0 is everybody."
  }
}

variable "client_ranges" {
  description = "Source ranges of clients."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "connections_per_gateway" {
  description = "Sessions per gateway at which the group grows: below WS_MAX_CONNECTIONS, so that there is room until the next gateway is ready."
  type        = number
  default     = 9000
}

variable "draining_s" {
  description = "How long a gateway that is removed from the group keeps its sessions before it is stopped; more than WS_DRAIN."
  type        = number
  default     = 90
}

variable "loadtest" {
  description = "Whether to create a load generator."
  type        = bool
  default     = false
}

# The following values are the same as in scripts/gcp.env.

variable "zone" {
  description = "The zone of the backend and the load generator."
  type        = string
  default     = "us-central1-a"
}

variable "network" {
  description = "The VPC network, in auto mode: it has a subnet in each region."
  type        = string
  default     = "default"
}

variable "image_family" {
  description = "The hosts' image family. The gateway needs Linux 6.1 or newer."
  type        = string
  default     = "ubuntu-2404-lts-amd64"
}

variable "image_project" {
  description = "The project of the image."
  type        = string
  default     = "ubuntu-os-cloud"
}

variable "images_region" {
  description = "The region of the image registry."
  type        = string
  default     = "us-central1"
}

variable "images_repository" {
  description = "The registry's name."
  type        = string
  default     = "odin"
}

variable "host_account" {
  description = "The service account of the backend and the gateways."
  type        = string
  default     = "odin-host"
}

variable "backend_instance" {
  description = "The backend's name."
  type        = string
  default     = "odin-backend"
}

variable "backend_machine_type" {
  description = "The backend's machine type; the limits of its containers add up to this machine."
  type        = string
  default     = "e2-medium"
}

variable "backend_disk_gb" {
  description = "The backend's disk: an hour of eight topics, a week of metrics and logs, images."
  type        = number
  default     = 40
}

variable "backend_tag" {
  description = "The network tag of the backend for the firewall."
  type        = string
  default     = "odin-backend"
}

variable "ws_instance" {
  description = "The prefix of the names of the gateways' instances."
  type        = string
  default     = "odin-ws-go"
}

variable "ws_machine_type" {
  description = "A gateway's machine type: one core for its shard, the others for the kernel's network work and logs."
  type        = string
  default     = "e2-standard-4"
}

variable "ws_disk_gb" {
  description = "A gateway's disk."
  type        = number
  default     = 40
}

variable "ws_tag" {
  description = "The network tag of the gateways for the firewall."
  type        = string
  default     = "odin-ws-server"
}

variable "loadtest_instance" {
  description = "The load generator's name."
  type        = string
  default     = "odin-loadtest"
}

variable "loadtest_machine_type" {
  description = "The load generator's machine type."
  type        = string
  default     = "e2-standard-8"
}

variable "loadtest_disk_gb" {
  description = "The load generator's disk."
  type        = number
  default     = 30
}

variable "loadtest_tag" {
  description = "The network tag of the load generator for the firewall."
  type        = string
  default     = "odin-loadtest"
}

variable "ws_port" {
  description = "The port of a gateway for clients, health checks and metrics."
  type        = number
  default     = 3004
}

variable "publisher_port" {
  description = "The publisher's HTTP API."
  type        = number
  default     = 3003
}

variable "grafana_port" {
  description = "Grafana."
  type        = number
  default     = 3010
}

variable "console_port" {
  description = "Redpanda's console."
  type        = number
  default     = 8080
}

variable "kafka_port" {
  description = "The broker's listener for other hosts."
  type        = number
  default     = 9092
}

variable "loki_port" {
  description = "Loki, for the log collectors of the gateways."
  type        = number
  default     = 3100
}

variable "health_check_ranges" {
  description = "Source ranges of Google's health checks: the first two for every load balancer, the others for passthrough ones."
  type        = list(string)
  default     = ["35.191.0.0/16", "130.211.0.0/22", "209.85.152.0/22", "209.85.204.0/22"]
}
