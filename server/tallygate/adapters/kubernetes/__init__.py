"""The Kubernetes API, asked over HTTPS with a service account's token."""
