//! What Matrix says: its routes, paths and queries, the shape of `/sync` and of errors (Matrix 1.19, MSC3079 Appendix B).
//!
//! Pure functions over text and JSON bytes. Knows neither CoAP nor HTTP; `translate` stands between the two.

pub mod error;
pub mod path;
mod percent;
pub mod query;
pub mod rewrite;
pub mod route;
pub mod shape;
pub mod sync;

pub use path::PathError;
pub use path::Target;
pub use path::expand;
pub(crate) use path::join;
pub use path::shorten;
pub use path::split_path;
pub use query::QueryError;
pub use query::expand_query;
pub use query::split_query;
pub use route::Route;
pub use route::routes;
