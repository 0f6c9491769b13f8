"""The image: its Dockerfile, its layers, its bill of materials."""
