"""The gateway: one nginx with a password in front of the model server and the page."""
