"""The conversation by aiocoap's Python interface as a device that agrees on its keys: EDHOC by aiocoap and lakers (method 3, cipher suite 2) as
initiator, from what `lowband device export` gives, and then OSCORE under what was agreed on. The gateway serves nobody without keys, and no
access token is on this side.

aiocoap 0.4.17 agrees on keys anew for each request: it keeps what it has agreed on in its transport, and looks for it in its credentials. So here
it is put there (`remember`); `aiocoap-client`, which makes one request, is taken as it is.
"""

import asyncio
import pathlib
import subprocess
import sys

import cbor2
import cbor_diag
from aiocoap import Context
from aiocoap import Message
from aiocoap.edhoc import EdhocInitiatorContext
from aiocoap.numbers.codes import GET

import by_aiocoap_oscore
from by_aiocoap_oscore import World
from by_aiocoap_oscore import is_limited
from by_aiocoap_oscore import is_somebody
from by_aiocoap_oscore import nobody_else
from by_aiocoap_oscore import observes
from by_aiocoap_oscore import sends
from world import PATIENCE

TITLE = "aiocoap 0.4.17 with lakers-python 0.6.2, as a device with EDHOC"
WORLD = World


class Conversation(by_aiocoap_oscore.Conversation):
    """The buoy, which is alice's device, and bob, who speaks with the homeserver itself."""

    async def load(self, directory, combined=None):
        """Begins anew with what was exported: aiocoap keeps nothing of what it has agreed on."""
        if self.context is not None:
            await self.context.shutdown()
        text = (self.world.directory / directory / "credentials.diag").read_text()
        credentials = cbor2.loads(cbor_diag.diag2cbor(text))
        for entry in credentials.values():
            if combined is not None:
                entry["edhoc-oscore"]["use_combined_edhoc"] = combined
        self.context = await Context.create_client_context()
        self.context.client_credentials.load_from_dict(credentials)
        for place in credentials:
            remember(self.context.client_credentials, place)

    def keys(self):
        """What was agreed on last."""
        message = Message(code=GET, uri=self.world.gateway)
        return self.context.client_credentials.credentials_from_request(message)

    async def is_refused(self):
        """What it asks comes to nothing."""
        try:
            code, body = await self.ask("GET", "/_matrix/client/v3/account/whoami")
        except Exception as error:
            asked = "buoy> GET /_matrix/client/v3/account/whoami"
            self.transcript.block(f"{asked}\naiocoap: {type(error).__name__}")
        else:
            raise AssertionError(f"still served: {code} {body}")


def remember(credentials, place):
    """Has what is agreed on take the place of what it is agreed on by."""
    entry = credentials[place]
    establish = entry.establish_context

    async def establish_once(**arguments):
        credentials[place] = await establish(**arguments)
        return credentials[place]

    entry.establish_context = establish_once


async def is_added(talk):
    """The operator adds the device to the gateway that runs, and exports its half for aiocoap"""
    await by_aiocoap_oscore.prepare_and_add(talk, "--security", "edhoc")
    await export(talk, "buoy")


async def export(talk, directory):
    address = talk.world.gateway.removeprefix("coap://")
    await talk.device("export", "buoy", "--format", "aiocoap", "-o", directory, "--gateway", address)
    await talk.load(directory)


async def asks_by_program(talk):
    """aiocoap's own program, with the file as it was exported: two round trips, the second of which carries the request"""
    program = pathlib.Path(sys.executable).parent / "aiocoap-client"
    target = f"{talk.world.gateway}/_matrix/client/v3/account/whoami"
    words = [target, "--accept", "application/json", "--credentials", "buoy/credentials.diag"]
    ran = await asyncio.to_thread(
        subprocess.run,
        [program, *words],
        cwd=talk.world.directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ran.returncode == 0 and "@alice:lowband.test" in ran.stdout, ran.stderr
    talk.transcript.block(f"$ aiocoap-client {' '.join(words)}\n{ran.stdout}")


async def has_agreed(talk):
    """Both have agreed on keys with their first requests, which went with message_3 in one, and the gateway keeps them"""
    assert isinstance(talk.keys(), EdhocInitiatorContext)
    assert "keys agreed on       2 that hold" in await talk.device("show", "buoy")


async def goes_on(talk):
    """The gateway is killed. After its start it knows the keys, and asks for proof that the request is fresh (Echo)"""
    await asyncio.to_thread(talk.world.restart_gateway)
    keys = talk.keys()
    before = keys.sender_sequence_number
    await talk.does("GET", "/_matrix/client/v3/account/whoami")
    assert talk.keys() is keys, "no others were agreed on"
    assert keys.sender_sequence_number == before + 2, "asked, and asked again with the proof"
    sent = {"msgtype": "m.text", "body": "after the restart"}
    await talk.does("PUT", f"/9/{talk.room}/m.room.message/a9", sent)
    assert keys.sender_sequence_number == before + 3


async def agrees_again(talk):
    """The device has lost what it agreed on, and agrees on other keys; this time message_3 goes alone, and is answered by message_4"""
    await talk.load("buoy", combined=False)
    await talk.does("GET", "/_matrix/client/v3/account/whoami")
    assert "keys agreed on       2 that hold" in await talk.device("show", "buoy")


async def is_rotated(talk):
    """The operator gives it new keys of its own. Once it has agreed on others by them, it is a stranger by the old"""
    await talk.device("rotate", "buoy")
    await talk.does("GET", "/_matrix/client/v3/account/whoami")
    await export(talk, "buoy-2")
    await talk.does("GET", "/_matrix/client/v3/account/whoami")
    await talk.load("buoy")
    await talk.is_refused()
    await talk.load("buoy-2")
    await talk.does("GET", "/_matrix/client/v3/account/whoami")


async def is_revoked(talk):
    """The operator revokes the device: it is a stranger at once, and agrees on nothing more"""
    await talk.device("revoke", "buoy")
    await talk.is_refused()
    await talk.load("buoy-2")
    await talk.is_refused()


STEPS = [
    is_added,
    asks_by_program,
    is_somebody,
    has_agreed,
    nobody_else,
    sends,
    is_limited,
    observes,
    goes_on,
    agrees_again,
    is_rotated,
    is_revoked,
]
