variable "region" {
  description = "The region of these gateways."
  type        = string
}

variable "gateways_min" {
  description = "Minimum number of gateways."
  type        = number
}

variable "gateways_max" {
  description = "Maximum number of gateways."
  type        = number
}

variable "name" {
  description = "Prefix of the names."
  type        = string
}

variable "machine_type" {
  description = "Machine type of each host."
  type        = string
}

variable "disk_gb" {
  description = "Disk size of each host."
  type        = number
}

variable "tag" {
  description = "Network tag of the hosts for the firewall."
  type        = string
}

variable "port" {
  description = "Port for clients, health checks and metrics."
  type        = number
}

variable "network" {
  description = "The VPC network."
  type        = string
}

variable "image" {
  description = "The hosts' image."
  type        = string
}

variable "images" {
  description = "Prefix of the image names."
  type        = string
}

variable "gateway_tag" {
  description = "The tag of the gateway's image."
  type        = string
}

variable "service_account" {
  description = "Service account of the hosts."
  type        = string
}

variable "backend_address" {
  description = "The broker's address within the network."
  type        = string
}

variable "connections_per_gateway" {
  description = "Sessions per gateway at which the group grows."
  type        = number
}

variable "draining_s" {
  description = "How long a gateway that is removed from the group keeps its sessions before it is stopped."
  type        = number
}

variable "startup_script" {
  description = "Startup script that installs Docker."
  type        = string
}

variable "files" {
  description = "Path and content of the repository's files that a host needs."
  type        = map(string)
}
