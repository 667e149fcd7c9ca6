//! What the homeserver answers: method and path → function.

use http::Method;
use serde_json::Value;

use super::Homeserver;
use super::request::Call;
use super::request::Caller;
use super::request::Handled;
use super::request::Refusal;

/// The function behind a route.
#[derive(Clone, Copy)]
pub(super) enum Handler {
    /// Anybody may ask.
    Open(fn(&mut Homeserver, &Call<'_>) -> Handled),
    /// An access token is needed.
    User(fn(&mut Homeserver, &Caller, &Call<'_>) -> Handled),
    /// An access token is needed, and there may be nothing to tell yet.
    Poll(fn(&mut Homeserver, &Caller, &Call<'_>) -> Result<Option<Value>, Refusal>),
}

/// Finds the function for a path and its parameters. A path that is known with another method is 405, another is 404.
pub(super) fn find(method: &Method, segments: &[String]) -> Result<(Handler, Vec<String>), Refusal> {
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let path = match segments.as_slice() {
        [".well-known", "matrix", "client"] => &[".well-known"][..],
        // §"API standards": releases of one endpoint keep their meaning, so any version will do.
        ["_matrix", "client", "r0" | "v1" | "v3", path @ ..] => path,
        ["_matrix", "client", path @ ..] if path == ["versions"] => path,
        _ => return Err(Refusal::unrecognized(404)),
    };
    let mut status = 404;
    for (of, template, handler) in ROUTES {
        let Some(parameters) = matches(template, path) else { continue };
        if of == method {
            return Ok((*handler, parameters));
        }
        status = 405;
    }
    Err(Refusal::unrecognized(status))
}

fn matches(template: &str, path: &[&str]) -> Option<Vec<String>> {
    let mut parameters = Vec::new();
    let mut path = path.iter();
    for part in template.split('/') {
        let segment = path.next()?;
        match part {
            "{}" => parameters.push((*segment).to_owned()),
            _ if part == *segment => {}
            _ => return None,
        }
    }
    path.next().is_none().then_some(parameters)
}

const GET: Method = Method::GET;
const PUT: Method = Method::PUT;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;

use Handler::Open;
use Handler::Poll;
use Handler::User;

static ROUTES: &[(Method, &str, Handler)] = &[
    (GET, "sync", Poll(Homeserver::sync)),
    (GET, ".well-known", Open(Homeserver::well_known)),
    (GET, "versions", Open(Homeserver::versions)),
    (GET, "capabilities", User(Homeserver::capabilities)),
    (GET, "login", Open(Homeserver::login_flows)),
    (POST, "login", Open(Homeserver::login)),
    (POST, "refresh", Open(Homeserver::refresh)),
    (POST, "register", Open(Homeserver::register)),
    (GET, "register/available", Open(Homeserver::register_available)),
    (POST, "logout", User(Homeserver::logout)),
    (POST, "logout/all", User(Homeserver::logout_all)),
    (GET, "account/whoami", User(Homeserver::whoami)),
    (GET, "devices", User(Homeserver::devices)),
    (GET, "devices/{}", User(Homeserver::device)),
    (PUT, "devices/{}", User(Homeserver::rename_device)),
    (DELETE, "devices/{}", User(Homeserver::delete_device)),
    (GET, "profile/{}", Open(Homeserver::profile)),
    (GET, "profile/{}/{}", Open(Homeserver::profile_field)),
    (PUT, "profile/{}/{}", User(Homeserver::set_profile_field)),
    (DELETE, "profile/{}/{}", User(Homeserver::remove_profile_field)),
    (GET, "presence/{}/status", User(Homeserver::presence)),
    (PUT, "presence/{}/status", User(Homeserver::set_presence)),
    (POST, "user/{}/filter", User(Homeserver::add_filter)),
    (GET, "user/{}/filter/{}", User(Homeserver::filter)),
    (GET, "user/{}/account_data/{}", User(Homeserver::account_data)),
    (PUT, "user/{}/account_data/{}", User(Homeserver::set_account_data)),
    (GET, "user/{}/rooms/{}/account_data/{}", User(Homeserver::room_account_data)),
    (PUT, "user/{}/rooms/{}/account_data/{}", User(Homeserver::set_room_account_data)),
    (GET, "user/{}/rooms/{}/tags", User(Homeserver::tags)),
    (PUT, "user/{}/rooms/{}/tags/{}", User(Homeserver::add_tag)),
    (DELETE, "user/{}/rooms/{}/tags/{}", User(Homeserver::remove_tag)),
    (GET, "pushrules/", User(Homeserver::push_rules)),
    (GET, "pushrules/global/", User(Homeserver::global_push_rules)),
    (POST, "createRoom", User(Homeserver::create_room)),
    (GET, "joined_rooms", User(Homeserver::joined_rooms)),
    (POST, "join/{}", User(Homeserver::join)),
    (POST, "rooms/{}/join", User(Homeserver::join)),
    (POST, "rooms/{}/invite", User(Homeserver::invite)),
    (POST, "rooms/{}/leave", User(Homeserver::leave)),
    (POST, "rooms/{}/kick", User(Homeserver::kick)),
    (POST, "rooms/{}/ban", User(Homeserver::ban)),
    (POST, "rooms/{}/unban", User(Homeserver::unban)),
    (POST, "rooms/{}/forget", User(Homeserver::forget)),
    (PUT, "rooms/{}/send/{}/{}", User(Homeserver::send)),
    (PUT, "rooms/{}/redact/{}/{}", User(Homeserver::redact)),
    (GET, "rooms/{}/state", User(Homeserver::state)),
    (GET, "rooms/{}/state/{}", User(Homeserver::state_event)),
    (PUT, "rooms/{}/state/{}", User(Homeserver::set_state)),
    (GET, "rooms/{}/state/{}/{}", User(Homeserver::state_event)),
    (PUT, "rooms/{}/state/{}/{}", User(Homeserver::set_state)),
    (GET, "rooms/{}/members", User(Homeserver::members)),
    (GET, "rooms/{}/joined_members", User(Homeserver::joined_members)),
    (GET, "rooms/{}/messages", User(Homeserver::messages)),
    (GET, "rooms/{}/event/{}", User(Homeserver::event)),
    (GET, "rooms/{}/context/{}", User(Homeserver::context)),
    (GET, "rooms/{}/aliases", User(Homeserver::room_aliases)),
    (PUT, "rooms/{}/typing/{}", User(Homeserver::typing)),
    (POST, "rooms/{}/receipt/{}/{}", User(Homeserver::receipt)),
    (POST, "rooms/{}/read_markers", User(Homeserver::read_markers)),
    (GET, "publicRooms", Open(Homeserver::public_rooms)),
    (POST, "publicRooms", User(Homeserver::search_public_rooms)),
    (GET, "directory/room/{}", Open(Homeserver::alias)),
    (PUT, "directory/room/{}", User(Homeserver::add_alias)),
    (DELETE, "directory/room/{}", User(Homeserver::remove_alias)),
    (GET, "directory/list/room/{}", Open(Homeserver::visibility)),
    (PUT, "directory/list/room/{}", User(Homeserver::set_visibility)),
    (POST, "keys/upload", User(Homeserver::upload_keys)),
    (POST, "keys/query", User(Homeserver::query_keys)),
    (POST, "keys/claim", User(Homeserver::claim_keys)),
    (GET, "keys/changes", User(Homeserver::key_changes)),
    (PUT, "sendToDevice/{}/{}", User(Homeserver::send_to_device)),
];
