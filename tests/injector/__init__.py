"""The injector: which pods get a sidecar, how they are asked about, and who went without."""
