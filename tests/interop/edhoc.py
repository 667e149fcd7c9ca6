#!/usr/bin/env python3
"""aiocoap's EDHOC (method 3, suite 2, by lakers) as initiator, against our responder on the loopback.

    cargo build --example edhoc_responder
    python3 -m venv v && v/bin/pip install 'aiocoap[oscore]==0.4.17'
    v/bin/python tests/interop/edhoc.py

Seen with aiocoap 0.4.17 and lakers-python 0.6.2: both ways work; message_1 has 38 bytes, as aiocoap adds an item of external data, which need
not be understood; it leaves the Content-Format out, and expects message_4 where message_3 goes alone.

Once with message_3 and a protected request in one (RFC 9668), once with message_3 alone and message_4. Ends with 0 if both
answers came protected.
"""

import asyncio
import pathlib
import subprocess
import sys

import aiocoap
import cbor2
from aiocoap.edhoc import CoseKeyForEdhoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESPONDER = ROOT / "target" / "debug" / "examples" / "edhoc_responder"


async def main():
    for combined in (True, False):
        print("message_3 with a request" if combined else "message_3 alone", flush=True)
        await trial(combined)


async def trial(combined):
    key = CoseKeyForEdhoc.generate()
    own = key.as_ccs(kid=b"\x07", subject="device")
    public = own[14][8][1]
    process = subprocess.Popen(
        [RESPONDER, "07", public[-2].hex(), public[-3].hex()], stdout=subprocess.PIPE, text=True
    )
    try:
        address = process.stdout.readline().split()[1]
        peer = cbor2.loads(bytes.fromhex(process.stdout.readline().split()[1]))
        context = await aiocoap.Context.create_client_context()
        context.client_credentials.load_from_dict(
            {
                f"coap://{address}/*": {
                    "edhoc-oscore": {
                        "suite": 2,
                        "method": 3,
                        "own_cred_style": "by-key-id",
                        "own_cred": own,
                        "private_key": key.secret_to_map(),
                        "peer_cred": {14: peer},
                        "use_combined_edhoc": combined,
                    }
                }
            }
        )
        for _ in range(2):
            request = aiocoap.Message(code=aiocoap.GET, uri=f"coap://{address}/7")
            response = await asyncio.wait_for(context.request(request).response, 20)
            assert response.code == aiocoap.CONTENT and response.payload == b"hello", response
        await context.shutdown()
    finally:
        process.terminate()
        for line in process.stdout:
            print("  responder:", line.rstrip())
        process.wait(10)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
