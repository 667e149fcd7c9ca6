//! Which shape of `/sync` a peer gets (docs/shaping.md), and its application to calls and answers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::StatusCode;

use super::{Config, FetchError};
use crate::matrix::shape::Shape;
use crate::translate::Call;

/// The shapes that are in use.
#[derive(Debug)]
pub(super) struct Shaping {
    shapes: Vec<Shape>,
    by_link: BTreeMap<String, ShapeId>,
    of_all: Option<ShapeId>,
}

/// One of the shapes; equal ones are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShapeId(usize);

impl Shaping {
    pub(super) fn new(config: &Config) -> Self {
        let mut shaping = Self { shapes: Vec::new(), by_link: BTreeMap::new(), of_all: None };
        shaping.of_all = config.shape.as_ref().map(|shape| shaping.add(shape));
        for (link, shape) in &config.shapes_by_link {
            let id = shaping.add(shape);
            shaping.by_link.insert(link.clone(), id);
        }
        shaping
    }

    fn add(&mut self, shape: &Shape) -> ShapeId {
        let known = self.shapes.iter().position(|other| other == shape);
        ShapeId(known.unwrap_or_else(|| {
            self.shapes.push(shape.clone());
            self.shapes.len() - 1
        }))
    }

    /// The shape for a peer behind this link.
    pub(super) fn of(&self, link: Option<&str>) -> Option<ShapeId> {
        link.and_then(|link| self.by_link.get(link).copied()).or(self.of_all)
    }

    /// A call of `/sync` as the shape has it made. What is kept is the call as the peer wants it: after a restart the shape may be
    /// another.
    pub(super) fn call<'a>(&self, shape: Option<ShapeId>, call: &'a Call) -> Cow<'a, Call> {
        match self.get(shape) {
            Some(shape) => Cow::Owned(Call { query: shape.query(&call.query), ..call.clone() }),
            None => Cow::Borrowed(call),
        }
    }

    /// An answer to such a request as the shape has it.
    pub(super) fn answer(
        &self,
        shape: Option<ShapeId>,
        query: &[String],
        result: Result<http::Response<Bytes>, FetchError>,
    ) -> Result<http::Response<Bytes>, FetchError> {
        let mut response = result?;
        if response.status() == StatusCode::OK
            && let Some(shaped) = self.get(shape).and_then(|shape| shape.answer(response.body(), query))
        {
            *response.body_mut() = shaped.into();
        }
        Ok(response)
    }

    fn get(&self, shape: Option<ShapeId>) -> Option<&Shape> {
        self.shapes.get(shape?.0)
    }
}
