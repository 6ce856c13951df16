"""How does a Python program ask Phasegate, without ever being let through by a failure?"""

from app.client.asynchronous import AsyncClient
from app.client.synchronous import Client
from app.client.wire import ClientError, Decision

__all__ = ["AsyncClient", "Client", "ClientError", "Decision"]
