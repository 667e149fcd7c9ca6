"""The conversation by aiocoap's Python interface as a device with a key of DTLS: aiocoap has it of tinydtls, by the package DTLSSocket.
The credentials are what `lowband device export` gives, and no access token is on this side.
"""

import asyncio
import json

import by_aiocoap_oscore
from aiocoap import Context
from by_aiocoap_oscore import is_limited
from by_aiocoap_oscore import is_revoked
from by_aiocoap_oscore import is_somebody
from by_aiocoap_oscore import observes
from by_aiocoap_oscore import sends
from transcript import compact

TITLE = "aiocoap 0.4.17 with DTLSSocket 0.2.3 (tinydtls), as a device with a key of DTLS"


class World(by_aiocoap_oscore.World):
    """A gateway that listens for DTLS alone, and serves devices alone."""

    LISTEN = "coaps://127.0.0.1:0"
    SCHEME = "coaps"


WORLD = World


class Conversation(by_aiocoap_oscore.Conversation):
    pass


async def is_added(talk):
    """The operator adds the device to the gateway that runs, and exports its key for aiocoap"""
    await by_aiocoap_oscore.prepare_and_add(talk, "--security", "dtls-psk", "--short-key")
    address = talk.world.gateway.removeprefix("coaps://")
    await talk.device("export", "buoy", "--format", "aiocoap", "-o", "buoy", "--gateway", address)
    talk.context = await connect(talk)


async def connect(talk):
    """A context that has the credentials."""
    context = await Context.create_client_context()
    credentials = json.loads((talk.world.directory / "buoy/credentials.json").read_text())
    talk.transcript.block(f"$ cat buoy/credentials.json\n{compact(credentials)}")
    context.client_credentials.load_from_dict(credentials)
    return context


async def begins_anew(talk):
    """The gateway is killed, and its sessions with it. aiocoap does not notice (tinydtls takes no
    alert in clear for true): it needs another context"""
    await asyncio.to_thread(talk.world.restart_gateway)
    await talk.context.shutdown()
    talk.context = await connect(talk)
    sent = {"msgtype": "m.text", "body": "after the restart"}
    await talk.does("PUT", f"/9/{talk.room}/m.room.message/a9", sent)


STEPS = [
    is_added,
    is_somebody,
    sends,
    is_limited,
    observes,
    begins_anew,
    is_revoked,
]
