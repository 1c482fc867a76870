"""The one error of this package: its message is all a user needs to read."""


class GatewayError(Exception):
    """Something the user has to change: a port in use, a weak password, an unreadable file."""
