"""The version of this package, as it names itself to services and on events."""

VERSION = "1.0.0"
SDK = f"tallygate-python/{VERSION}"
