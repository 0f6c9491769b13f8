"""What Envoy asks and tells: rules, conversions, the services, and a real Envoy."""
