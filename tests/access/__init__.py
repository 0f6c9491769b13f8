"""Who may call control, with which rights processes run, and secrets that change meanwhile."""
