"""The entrance of all requests, and the short way of those that do not have to wait. The docstring of
signer.web draws both ways."""
