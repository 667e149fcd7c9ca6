//! `lowband check-config`: the settings that a gateway would have, and where each comes from.
//!
//! The output is itself a TOML file of settings.

use std::io;
use std::io::Write;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Failure;
use super::config;
use super::config::ConfigError;
use super::config::Effective;
use super::config::Flags;
use super::config::Given;
use super::config::Kind;
use super::config::Origin;
use super::config::SETTINGS;
use super::config::Settings;

/// Reads the settings as `lowband gateway` would, checks them, and prints them with their places.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckConfigArgs {
    #[command(flatten)]
    flags: Flags,
    /// Print JSON instead of TOML.
    #[arg(long)]
    json: bool,
}

/// Prints what is set; fails where that is not valid.
pub(crate) fn run(args: CheckConfigArgs) -> Result<(), Failure> {
    let (settings, mut errors) = Settings::read(&args.flags, std::env::vars_os());
    let mut warnings = settings.warnings.clone();
    match Effective::read(&settings) {
        Ok(effective) => warnings.extend(effective.warnings),
        Err(invalid) => errors.extend(invalid),
    }
    let text = if args.json { json(&settings, &errors, &warnings) } else { toml(&settings) };
    io::stdout().write_all(text.as_bytes()).map_err(Failure::output)?;
    if !args.json {
        warnings.iter().for_each(|warning| drop(writeln!(io::stderr(), "warning: {warning}")));
    }
    if errors.is_empty() { Ok(()) } else { Err(config::fail(&errors)) }
}

fn toml(settings: &Settings) -> String {
    let mut lines: Vec<(String, String)> = Vec::new();
    for setting in SETTINGS {
        lines.push(match settings.get(setting.name) {
            Some(given) => {
                (format!("{} = {}", setting.name, toml_value(given, setting.kind)), given.origin.to_string())
            }
            None => (format!("# {}", setting.name), "not set".into()),
        });
    }
    // Tables come last: what stands after one belongs to it.
    let mut tables = toml::Table::new();
    for (name, all) in [("link", &settings.links.tables), ("shape", &settings.shaping.tables)] {
        if !all.is_empty() {
            tables.insert(name.into(), all.clone().into());
        }
    }
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or_default();
    let settings = lines.into_iter().map(|(line, origin)| format!("{line:width$}  # {origin}\n"));
    settings.chain([tables.to_string()]).collect()
}

fn toml_value(given: &Given, kind: Kind) -> String {
    let last = given.values.last().map(String::as_str).unwrap_or_default();
    match kind {
        Kind::Texts => toml::Value::from(given.values.clone()).to_string(),
        Kind::Text => toml::Value::from(last).to_string(),
        // As it stands, if it can stand in a file: what is no number was reported as an error.
        Kind::Number | Kind::Switch => match last.parse::<toml::Value>() {
            Ok(_) => last.to_owned(),
            Err(_) => toml::Value::from(last).to_string(),
        },
    }
}

fn json(settings: &Settings, errors: &[ConfigError], warnings: &[String]) -> String {
    let mut all = Map::new();
    for setting in SETTINGS {
        if let Some(given) = settings.get(setting.name) {
            let value = json_value(given, setting.kind);
            all.insert(setting.name.into(), json!({ "value": value, "from": origin(&given.origin) }));
        }
    }
    let errors: Vec<_> = errors.iter().map(error).collect();
    let document = json!({
        "valid": errors.is_empty(),
        "settings": all,
        "links": settings.links.tables,
        "shapes": settings.shaping.tables,
        "errors": errors,
        "warnings": warnings,
    });
    format!("{document:#}\n")
}

fn json_value(given: &Given, kind: Kind) -> Value {
    let last = given.values.last().map(String::as_str).unwrap_or_default();
    match kind {
        Kind::Texts => given.values.clone().into(),
        Kind::Text => last.into(),
        Kind::Number | Kind::Switch => serde_json::from_str(last).unwrap_or_else(|_| last.into()),
    }
}

fn origin(origin: &Origin) -> Value {
    match origin {
        Origin::Default => json!({ "place": "default" }),
        Origin::File { path, line } => json!({ "place": "file", "path": path, "line": line }),
        Origin::Environment(name) => json!({ "place": "environment", "variable": name }),
        Origin::Flag(name) => json!({ "place": "flag", "flag": name }),
    }
}

fn error(error: &ConfigError) -> Value {
    json!({
        "error": error.message,
        "setting": error.setting,
        "from": error.origin.as_ref().map(origin),
        "hint": error.hint,
    })
}
