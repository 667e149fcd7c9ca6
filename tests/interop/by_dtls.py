"""DTLS as others speak it: both builds of `coap-client`, by key and by certificate, and `openssl s_client`."""

import subprocess

import by_libcoap
from by_libcoap import Lines
from transcript import compact
from world import PATIENCE
from world import World
from world import messages
from world import registration

TITLE = "DTLS clients: coap-client of libcoap 4.3.1 with OpenSSL and with GnuTLS, and openssl s_client"

CLIENTS = ["coap-client-openssl -B 20", "coap-client-gnutls -B 20"]


class SecureWorld(World):
    """A world whose gateway serves devices by key, and others by certificate."""

    LISTEN = "coaps://127.0.0.1:0"
    SCHEME = "coaps"
    def protection(self):
        return ["--state", self.directory / "state"]

    def options(self):
        for name in "gateway", "client":
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
                + ["-days", "30", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"],
                cwd=self.directory,
                check=True,
                stderr=subprocess.DEVNULL,
            )
            (self.directory / f"{name}.key").chmod(0o600)
        file = self.directory
        return [
            "--certificate",
            file / "gateway.pem",
            "--certificate-key",
            file / "gateway.key",
            "--allow-unprovisioned",
            "dtls",
        ]


WORLD = SecureWorld


class Conversation(by_libcoap.Conversation):
    pass


def adds_a_device(talk):
    """Alice's device is made, with a key for DTLS; her token stays with the gateway"""
    for name in "alice", "bob":
        status, user = talk.world.http("POST", "/_matrix/client/v3/register", None, registration(name))
        assert status == 200, user
        talk.set(name.upper(), user["access_token"])
    talk.set("HOMESERVER", talk.world.homeserver)
    (talk.world.directory / "token").write_text(talk.variables["ALICE"])
    talk.shell(
        "lowband device add van --user @alice:lowband.test --token-file token --security dtls-psk --routes all"
        " --devices state.devices --homeserver $HOMESERVER"
    )
    talk.shell("lowband device export van --devices state.devices -o van.toml && cat van.toml")
    lines = (talk.world.directory / "van.toml").read_text().splitlines()
    values = dict(line.split(" = ") for line in lines if " = " in line)
    talk.set("ID", values["identity"].strip('"'))
    talk.set("HEX", values["key"].strip('"'))
    talk.set("KEY", bytes.fromhex(talk.variables["HEX"]).decode())


def asks_by_key(talk):
    """Both builds ask by the key, without a token"""
    for client in CLIENTS:
        answer = talk.json(f"{client} -A 50 -u $ID -k $KEY $GATEWAY/_matrix/client/v3/account/whoami")
        assert answer["user_id"] == "@alice:lowband.test"


def sends_by_key(talk):
    """A room and a message, by the key"""
    client = CLIENTS[0]
    answer = talk.json(
        f"""echo '{{"name":"Funkloch"}}' | {client} -m post -t 50 -A 50 -u $ID -k $KEY -f - """
        "$GATEWAY/_matrix/client/v3/createRoom"
    )
    talk.set("ROOM", answer["room_id"])
    for number, client in enumerate(CLIENTS):
        body = compact({"msgtype": "m.text", "body": f"Hello {number} 🌍"})
        sent = talk.json(
            f"echo '{body}' | {client} -m put -t 50 -A 50 -u $ID -k $KEY -f - $GATEWAY/9/$ROOM/m.room.message/t{number}"
        )
        room = talk.variables["ROOM"]
        event = talk.world.answer(f"/_matrix/client/v3/rooms/{room}/event/{sent['event_id']}", talk.variables["ALICE"])
        assert event["content"]["body"] == f"Hello {number} 🌍"


def observes_by_key(talk):
    """The device observes /sync for 8 seconds while a message is sent over HTTP"""
    room, alice = talk.variables["ROOM"], talk.variables["ALICE"]
    since = talk.world.answer("/_matrix/client/v3/sync?timeout=0", alice)["next_batch"]
    talk.set("SINCE", since)
    command = f'{CLIENTS[0]} -s 8 -w -A 50 -u $ID -k $KEY "$GATEWAY/7?since=$SINCE"'
    process = subprocess.Popen(
        ["bash", "-c", command], env=talk.environment(), stdout=subprocess.PIPE, cwd=talk.world.directory
    )
    output = Lines(process.stdout)
    output.sync_with(room, PATIENCE)
    target = f"/_matrix/client/v3/rooms/{room}/send/m.room.message/o1"
    assert talk.world.http("PUT", target, alice, {"msgtype": "m.text", "body": "news"})[0] == 200
    heard = output.sync_with(room, PATIENCE)
    assert messages(heard, room) == ["news"]
    process.wait(PATIENCE)
    output.rest()
    talk.transcript.block(f"$ {command}\n" + "\n".join(line[:400] for line in output.seen))


def asks_by_certificate(talk):
    """Both builds come by certificate, as no device, with bob's own token (the client checks nothing here: -n)"""
    for client in CLIENTS:
        answer = talk.json(
            f"{client} -A 50 -n -c client.pem -j client.key -O 256,$BOB $GATEWAY/_matrix/client/v3/account/whoami"
        )
        assert answer["user_id"] == "@bob:lowband.test"


def pings_by_openssl(talk):
    """`openssl s_client` sends an empty confirmable message, and gets the reset that CoAP has for a ping"""
    talk.set("ADDRESS", talk.world.gateway.removeprefix("coaps://"))
    said = talk.shell(
        r"(sleep 1; printf '\x40\x00\x12\x34'; sleep 1) | timeout 4 openssl s_client -quiet -dtls1_2 -connect $ADDRESS"
        " -psk_identity $ID -psk $HEX -cipher PSK-AES128-CCM8 2>/dev/null | od -An -tx1"
    )
    assert said.split() == ["70", "00", "12", "34"], said


def is_revoked(talk):
    """The device is revoked: it gets no session any more"""
    talk.shell("lowband device revoke van --devices state.devices")
    for client in ["coap-client-openssl -B 3", "coap-client-gnutls -B 3"]:
        command = f"{client} -A 50 -u $ID -k $KEY $GATEWAY/_matrix/client/v3/account/whoami || true"
        assert "user_id" not in talk.shell(command)


STEPS = [
    adds_a_device,
    asks_by_key,
    sends_by_key,
    observes_by_key,
    asks_by_certificate,
    pings_by_openssl,
    is_revoked,
]
