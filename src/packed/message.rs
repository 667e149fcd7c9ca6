//! Requests and responses: their items, one after the other. What is before and after them is the coders' affair.

use serde::Deserialize;
use serde::Serialize;

use crate::codec::Text;
use crate::matrix::join;
use crate::matrix::query;
use crate::matrix::split_path;
use crate::packed::code;
use crate::packed::coder;
use crate::packed::coder::Header;
use crate::packed::dictionary::Dictionary;
use crate::packed::draft::Frame;
use crate::packed::draft::Known;
use crate::packed::draft::Spelling;
use crate::packed::error::DecodeError;
use crate::packed::error::EncodeError;
use crate::packed::read::Reader;
use crate::packed::stream::Context;
use crate::packed::stream::Role;
use crate::packed::stream::Source;
use crate::packed::stream::Written;
use crate::packed::tables;
use crate::packed::tables::METHODS;
use crate::packed::tables::Parameter;
use crate::packed::tables::Route;
use crate::packed::tokens;
use crate::packed::tokens::Mark;
use crate::packed::write::DEPTH;
use crate::packed::write::Writer;

/// A request of HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// The method, in capitals.
    pub method: String,
    /// The path, percent-encoded.
    pub path: String,
    /// What is after the `?`, as it stands there.
    pub query: Option<String>,
    /// The body; JSON comes back value for value, and anything else byte for byte.
    pub body: Option<Vec<u8>>,
}

/// A response of HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// The status, where the code of the CoAP response does not say it.
    pub status: Option<u16>,
    /// The body.
    pub body: Option<Vec<u8>>,
}

/// What most requests that tell something are answered: it takes no bytes.
pub(super) fn nothing_to_say() -> Response {
    Response { status: None, body: Some(b"{}".to_vec()) }
}

/// What a response answers: both ends have it from the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Asked {
    pub(super) route: u16,
    pub(super) frame: Frame,
    /// At the gateway: whether it came while the proxy waited for no other answer, and how often that had not been so before.
    #[serde(default)]
    pub(super) is_alone: bool,
    #[serde(default)]
    pub(super) round: u64,
    /// What tells the request from others.
    #[serde(default)]
    pub(super) fingerprint: u64,
}

impl Asked {
    /// The same of a registration, which may be answered more than once: what is said to observers is acknowledged by CoAP alone.
    #[must_use]
    pub fn observing(self) -> Self {
        Asked { is_alone: false, ..self }
    }
}

/// The items begin with the number of the first alias.
const BASE: u8 = 1 << 1;
/// Before that there is a status, or a position. In a request: the proxy waits for the answer to another.
const EXTRA: u8 = 1;

/// The first of the names that stand for routes in contexts.
const ROUTES: u16 = 0x4000;
/// The name in contexts of what a request has besides arguments.
const QUERY: u16 = 0x4ff0;
const BODY: u16 = 0x4ff1;

/// What was written, with its header but for the coder.
pub(super) struct Message<'a> {
    pub(super) writer: Writer<'a>,
    pub(super) asked: Asked,
    prefix: Written,
    header: Header,
}

impl Message<'_> {
    /// The message's bytes, by the coder that makes the fewest, and how many bytes of items they stand for.
    pub(super) fn code(&mut self, dictionary: &Dictionary) -> (Vec<u8>, usize) {
        let written = self.written();
        let payload = dictionary.coders().code(dictionary.allowed(), self.header, &written);
        (payload, written.bytes.len())
    }

    /// All items, with the numbers before them.
    fn written(&mut self) -> Written {
        let mut written = std::mem::take(&mut self.prefix);
        written.append(std::mem::take(&mut self.writer.out));
        written
    }

    /// What both ends know since the tokens that this message gave.
    pub(super) fn mark(&self) -> Mark {
        let writer = &self.writer;
        mark(writer.draft.base.map(|_| writer.draft.next), &self.asked.frame, writer.clock.last)
    }
}

fn mark(next: Option<u64>, frame: &Frame, time: i64) -> Mark {
    Mark { token: 0, time, next: next.unwrap_or_else(|| frame.mark.map_or(0, |mark| mark.next)) }
}

/// Writes a request.
pub(super) fn write_request<'a>(
    request: &Request,
    is_alone: bool,
    known: Known<'a>,
    spelling: Spelling,
) -> Result<Message<'a>, EncodeError> {
    let segments = split_path(&request.path).unwrap_or_default();
    let borrowed: Vec<&str> = segments.iter().map(String::as_str).collect();
    let route = known.tables.find(&request.method, &borrowed);
    let places = route.map(|route| route.request.as_slice()).unwrap_or_default();
    let mut writer = Writer::new(known, Frame::default(), spelling, places);
    let number = route.map_or(0, |route| route.number);
    writer.at(Role::Route, 0);
    writer.varint(number.into(), Role::Route);
    writer.at(Role::Value, ROUTES + number);
    match route {
        Some(route) => {
            let arguments = route.arguments(&borrowed);
            for (parameter, argument) in route.parameters().zip(arguments) {
                match parameter {
                    Parameter::Transaction => writer.begin_transaction(&request.path, argument),
                    Parameter::Text => writer.string(argument),
                }
            }
        }
        None => write_path(&mut writer, request, &borrowed)?,
    }
    let has_foreign_position = write_query(&mut writer, request.query.as_deref());
    writer.at(Role::Value, BODY);
    write_body(&mut writer, request.body.as_deref());
    if has_foreign_position {
        return Err(EncodeError::ForeignPosition);
    }
    if writer.has_foreign_token {
        return Err(EncodeError::ForeignToken);
    }
    // No request begins with 0x01, which is a hello's.
    if !is_alone && epoch(&known) == 0 {
        writer.draft.uses_base();
    }
    let (mut prefix, mut flags) = (Written::default(), if is_alone { 0 } else { EXTRA });
    if let Some(base) = writer.draft.base {
        prefix.varint(base, Context { role: Role::Base, name: ROUTES, parent: 0 });
        flags |= BASE;
    }
    let asked = Asked { route: number, frame: writer.frame, ..Asked::default() };
    Ok(Message { writer, asked, prefix, header: Header { epoch: epoch(&known), flags, name: 0 } })
}

fn write_path(writer: &mut Writer<'_>, request: &Request, segments: &[&str]) -> Result<(), EncodeError> {
    let method = METHODS.iter().position(|method| *method == request.method);
    let method = method.ok_or_else(|| EncodeError::Method(request.method.clone()))?;
    writer.code(method as u8);
    for segment in segments {
        writer.string(segment);
    }
    writer.code(code::END);
    Ok(())
}

/// A query is a string in which tokens left holes, and the tokens. Says whether one of them is a foreign position of sliding sync.
fn write_query(writer: &mut Writer<'_>, query: Option<&str>) -> bool {
    writer.at(Role::Value, QUERY);
    let Some(query) = query else {
        writer.code(code::ABSENT);
        return false;
    };
    let mut taken = Vec::new();
    let parts = query.split('&').map(|part| match part.split_once('=') {
        Some((name, value)) if tables::is_token_parameter(name) => match tokens::parse_client_token(value) {
            Some(token) => {
                taken.push((name == POSITION, token));
                format!("{name}={HOLE}")
            }
            None => part.to_owned(),
        },
        _ => part.to_owned(),
    });
    let template = parts.collect::<Vec<String>>().join("&");
    writer.query(&template);
    let mut has_foreign_position = false;
    for (is_position, (generation, number)) in taken {
        writer.take_token(generation, number);
        has_foreign_position |= is_position && generation != writer.known.agreement.tokens;
    }
    has_foreign_position
}

/// The parameter with a position of sliding sync.
const POSITION: &str = "pos";

/// Stands in a query where a token was; no query has it in it.
const HOLE: char = '\u{1}';

fn write_body(writer: &mut Writer<'_>, body: Option<&[u8]>) {
    let Some(body) = body else { return writer.code(code::ABSENT) };
    if writer.json(body) {
        return;
    }
    writer.code(code::OPAQUE);
    writer.varint(body.len() as u64, Role::Length);
    writer.out.raw(body);
}

/// Writes a response to what was asked; a notification says besides from which position it goes on.
pub(super) fn write_response<'a>(
    response: &Response,
    asked: Asked,
    position: Option<Mark>,
    known: Known<'a>,
    spelling: Spelling,
) -> Message<'a> {
    let registered = asked.frame.mark.map_or(0, |mark| mark.token);
    let frame = Frame { mark: position.or(asked.frame.mark), ..asked.frame };
    let route = known.tables.route(asked.route.into());
    let places = route.map(|route| route.answer.as_slice()).unwrap_or_default();
    let mut writer = Writer::new(known, frame, spelling, places);
    writer.at(Role::Value, ROUTES + asked.route);
    write_body(&mut writer, response.body.as_deref());
    let (mut prefix, mut flags) = (Written::default(), 0);
    let context = Context { role: Role::Base, name: ROUTES + asked.route, parent: 1 };
    if let Some(position) = position {
        prefix.varint(code::zigzag(position.token.wrapping_sub(registered) as i64), context);
        flags |= EXTRA;
    } else if let Some(status) = response.status {
        prefix.varint(status.into(), context);
        flags |= EXTRA;
    }
    if let Some(base) = writer.draft.base {
        let difference = base.wrapping_sub(frame.mark.map_or(0, |mark| mark.next)) as i64;
        prefix.varint(code::zigzag(difference), Context { parent: 0, ..context });
        flags |= BASE;
    }
    let header = Header { epoch: epoch(&known), flags, name: ROUTES + asked.route };
    Message { writer, asked: Asked { frame, ..asked }, prefix, header }
}

fn epoch(known: &Known<'_>) -> u8 {
    known.agreement.epoch as u8 & 7
}

/// How much a message may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The bytes of a body, and of its items.
    pub output: usize,
    /// The bytes of items that the model makes, each of which takes it as long as it takes other coders to make hundreds.
    pub model: usize,
}

impl Limits {
    /// Those of requests: less by the model, as a gateway has many peers.
    pub const OF_REQUEST: Limits = Limits { output: 16 << 20, model: coder::MODEL_ITEMS_OF_REQUEST };
    /// Those of responses.
    pub const OF_RESPONSE: Limits = Limits { output: 16 << 20, model: coder::MODEL_ITEMS };
}

impl Default for Limits {
    /// Those of responses, which are the larger ones.
    fn default() -> Self {
        Self::OF_RESPONSE
    }
}

/// What a message is, and what its reader learned from it.
pub(super) struct Read<'a, T> {
    pub(super) what: T,
    pub(super) asked: Asked,
    pub(super) reader: Reader<'a>,
}

impl<T> Read<'_, T> {
    pub(super) fn mark(&self) -> Mark {
        let learned = &self.reader.learned;
        mark(learned.has_base.then_some(learned.next), &self.asked.frame, self.reader.clock.last)
    }
}

/// Reads a request.
pub(super) fn read_request<'a>(
    payload: &'a [u8],
    known: Known<'a>,
    dictionary: &'a Dictionary,
    limits: Limits,
) -> Result<Read<'a, Request>, DecodeError> {
    let (flags, source) = open(payload, &known, 0, dictionary, limits)?;
    let is_alone = flags & EXTRA == 0;
    let mut reader = Reader::new(source, known, Frame::default(), limits.output);
    if flags & BASE != 0 {
        reader.base(Context { role: Role::Base, name: ROUTES, parent: 0 }, None)?;
    }
    let (what, route) = request_items(&mut reader, limits)?;
    let asked = Asked { route, frame: reader.frame, is_alone, ..Asked::default() };
    Ok(Read { what, asked, reader })
}

pub(super) fn request_items(reader: &mut Reader<'_>, limits: Limits) -> Result<(Request, u16), DecodeError> {
    reader.at(Role::Route, 0);
    let number = reader.varint(Role::Route)?;
    let route = match number {
        0 => None,
        _ => Some(reader.tables().route(number).ok_or(DecodeError::UnknownRoute(number))?),
    };
    let number = number as u16;
    reader.at(Role::Value, ROUTES + number);
    let (method, path) = match route {
        Some(route) => (route.method, read_arguments(reader, route)?),
        None => read_path(reader, limits)?,
    };
    let query = read_query(reader, limits)?;
    reader.at(Role::Value, BODY);
    let body = read_body(reader, limits)?;
    Ok((Request { method: method.to_owned(), path, query, body }, number))
}

fn read_arguments(reader: &mut Reader<'_>, route: &Route) -> Result<String, DecodeError> {
    let mut arguments = Vec::new();
    for _ in route.parameters() {
        let code = reader.code()?;
        arguments.push(reader.string(code)?);
    }
    path_of(&route.fill(&arguments))
}

fn read_path(reader: &mut Reader<'_>, limits: Limits) -> Result<(&'static str, String), DecodeError> {
    let method = reader.code()?;
    let method = METHODS.get(usize::from(method)).ok_or(DecodeError::Code(method))?;
    let mut segments = Vec::new();
    let mut left = limits.output;
    loop {
        match reader.code()? {
            code::END => break,
            code => segments.push(reader.string(code)?),
        }
        // A segment that is referred to may be longer than its reference.
        let length = segments.last().map_or(0, String::len) + 1;
        left = left.checked_sub(length).ok_or(DecodeError::Output { limit: limits.output })?;
    }
    Ok((method, path_of(&segments.iter().map(String::as_str).collect::<Vec<&str>>())?))
}

/// The path of segments. Dot segments would lead to another than the one that was meant (RFC 3986 §5.2.4).
fn path_of(segments: &[&str]) -> Result<String, DecodeError> {
    if segments.is_empty() || segments.iter().any(|segment| matches!(*segment, "." | "..")) {
        return Err(DecodeError::Path);
    }
    Ok(join(segments))
}

fn read_query(reader: &mut Reader<'_>, limits: Limits) -> Result<Option<String>, DecodeError> {
    reader.at(Role::Value, QUERY);
    let code = reader.code()?;
    if code == code::ABSENT {
        return Ok(None);
    }
    let template = reader.query(code)?;
    if reader.is_sample {
        reader.skip_tokens()?;
    }
    let template = if reader.is_sample { "" } else { template.as_str() };
    let mut parts = template.split(HOLE);
    let mut query = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = reader.code()?;
        let is_position =
            query.strip_suffix('=').is_some_and(|before| before.rsplit('&').next() == Some(POSITION));
        let filling = reader.string(code).map_err(|error| match error {
            DecodeError::UnknownToken(number) if is_position => DecodeError::UnknownPosition(number),
            error => error,
        })?;
        match code {
            // A homeserver's tokens may have anything in them; what a client said stands as it was sent.
            code::TOKEN | code::TOKEN_BARE => query::encode_value(&filling, &mut query),
            _ => query.push_str(&filling),
        }
        query.push_str(part);
        if query.len() > limits.output {
            return Err(DecodeError::Output { limit: limits.output });
        }
    }
    // What is no part of a query would end it, or the request's first line.
    if query.bytes().any(|byte| byte <= b' ' || byte == b'#' || byte == 0x7f) {
        return Err(DecodeError::Path);
    }
    Ok(Some(query))
}

fn read_body(reader: &mut Reader<'_>, limits: Limits) -> Result<Option<Vec<u8>>, DecodeError> {
    match reader.code()? {
        code::ABSENT => Ok(None),
        code::OPAQUE => {
            let length = reader.varint(Role::Length)?;
            if length > limits.output as u64 {
                return Err(DecodeError::Output { limit: limits.output });
            }
            reader.source.raw(length).map(Some)
        }
        code => {
            let mut out = Text::new(limits.output, 256);
            reader.value(code, &mut out, DEPTH)?;
            Ok(Some(out.into_bytes()))
        }
    }
}

/// Reads a response to what was asked, or a notification of it.
pub(super) fn read_response<'a>(
    payload: &'a [u8],
    asked: Asked,
    marks: Option<&dyn Fn(u64) -> Option<Mark>>,
    known: Known<'a>,
    dictionary: &'a Dictionary,
    limits: Limits,
) -> Result<Read<'a, Response>, DecodeError> {
    let (flags, source) = open(payload, &known, ROUTES + asked.route, dictionary, limits)?;
    let context = Context { role: Role::Base, name: ROUTES + asked.route, parent: 1 };
    let mut reader = Reader::new(source, known, asked.frame, limits.output);
    let mut status = None;
    if flags & EXTRA != 0 {
        let extra = reader.varint_at(context)?;
        match marks {
            None => status = Some(u16::try_from(extra).map_err(|_| DecodeError::Damaged)?),
            Some(marks) => {
                let registered = asked.frame.mark.map_or(0, |mark| mark.token);
                let token = registered.wrapping_add_signed(code::unzigzag(extra));
                let mark = marks(token).ok_or(DecodeError::UnknownToken(token))?;
                reader.continue_from(mark);
            }
        }
    }
    let asked = Asked { frame: reader.frame, ..asked };
    if flags & BASE != 0 {
        reader.base(Context { parent: 0, ..context }, Some(asked.frame.mark.map_or(0, |mark| mark.next)))?;
    }
    let body = response_items(&mut reader, asked.route, limits)?;
    Ok(Read { what: Response { status, body }, asked, reader })
}

pub(super) fn response_items(
    reader: &mut Reader<'_>,
    route: u16,
    limits: Limits,
) -> Result<Option<Vec<u8>>, DecodeError> {
    reader.at(Role::Value, ROUTES + route);
    read_body(reader, limits)
}

fn open<'a>(
    payload: &'a [u8],
    known: &Known<'_>,
    name: u16,
    dictionary: &'a Dictionary,
    limits: Limits,
) -> Result<(u8, Source<'a>), DecodeError> {
    let (header, source) = dictionary.coders().open(payload, name, limits)?;
    let ours = epoch(known);
    if header.epoch != ours {
        return Err(DecodeError::UnknownEpoch { theirs: header.epoch, ours });
    }
    Ok((header.flags, source))
}

/// What the model is told of the flags of a sample.
pub(super) fn sample_header(kind: u8, flags: u8, route: u16) -> (u8, Context) {
    let header = Header { epoch: 0, flags: flags & 3, name: if kind == 0 { 0 } else { ROUTES + route } };
    (header.flags, header.context())
}

/// Reads a sample of a request.
pub(super) fn sample_request(reader: &mut Reader<'_>, flags: u8) -> Result<(), DecodeError> {
    if flags & BASE != 0 {
        reader.base(Context { role: Role::Base, name: ROUTES, parent: 0 }, None)?;
    }
    request_items(reader, Limits::default()).map(|_| ())
}

/// Reads a sample of a response.
pub(super) fn sample_response(reader: &mut Reader<'_>, flags: u8, route: u16) -> Result<(), DecodeError> {
    let context = Context { role: Role::Base, name: ROUTES + route, parent: 1 };
    if flags & EXTRA != 0 {
        reader.varint_at(context)?;
    }
    if flags & BASE != 0 {
        reader.base(Context { parent: 0, ..context }, Some(0))?;
    }
    response_items(reader, route, Limits::default()).map(|_| ())
}
