variable "region" {
  description = "Where these gateways run."
  type        = string
}

variable "gateways_min" {
  description = "How many there are at least."
  type        = number
}

variable "gateways_max" {
  description = "How many there are at most."
  type        = number
}

variable "name" {
  description = "What names begin with."
  type        = string
}

variable "machine_type" {
  description = "Of each host."
  type        = string
}

variable "disk_gb" {
  description = "Of each host."
  type        = number
}

variable "tag" {
  description = "What the firewall knows the hosts by."
  type        = string
}

variable "port" {
  description = "Clients, health checks and metrics."
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
  description = "What the names of our images begin with."
  type        = string
}

variable "gateway_tag" {
  description = "The tag of the gateway's image."
  type        = string
}

variable "service_account" {
  description = "Whom the hosts act as."
  type        = string
}

variable "backend_address" {
  description = "The broker's address within the network."
  type        = string
}

variable "connections_per_gateway" {
  description = "Sessions of one gateway at which the group grows."
  type        = number
}

variable "draining_s" {
  description = "How long a gateway that leaves the group keeps its sessions before it is told to end."
  type        = number
}

variable "startup_script" {
  description = "What makes an instance a host with Docker."
  type        = string
}

variable "files" {
  description = "Path and content of what a host needs of the repository."
  type        = map(string)
}
