"""The shared oracle: what must hold after every fault, over a recorded history."""
