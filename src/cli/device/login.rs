//! `lowband device login`, and the access token of a new device: where it comes from, and whose it is.

use std::path::PathBuf;

use clap::Args;
use clap::ValueEnum;
use lowband::device::Name;
use lowband::device::Secret;
use lowband::device::Tokens;
use lowband::net::Clock;
use lowband::net::control::Command;
use lowband::net::login::Homeserver;
use lowband::net::login::LoginError;
use lowband::net::login::oauth;
use lowband::net::upstream;

use super::Desk;
use super::PlaceArgs;
use super::password;
use crate::cli::Failure;
use crate::cli::config::Settings;
use crate::cli::config::homeserver_url;
use crate::cli::output;

/// Give a device another access token: its own has ended, or it never had one
#[derive(Debug, Args)]
#[command(after_help = "\
Example: log the device in again
  $ lowband device login buoy --login")]
pub(super) struct LoginArgs {
    /// Which
    name: Name,
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Where an access token comes from.
#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// An access token that there is: the first line of a file, - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "login")]
    token_file: Option<PathBuf>,
    /// Log in at the homeserver as a new Matrix device: with a password, or where the homeserver offers it in a browser elsewhere (OAuth
    /// 2.0), which comes first
    #[arg(long, value_name = "WAY", num_args = 0..=1, require_equals = true, default_missing_value = "any")]
    login: Option<Way>,
    /// The password: the first line of a file, - for standard input; asked for on the terminal, if not given
    #[arg(long, value_name = "FILE", requires = "login")]
    password_file: Option<PathBuf>,
    /// Do not ask the homeserver whose the token in --token-file is
    #[arg(long, requires = "token_file")]
    unchecked: bool,
    /// The homeserver's base URL, as the gateway has it
    #[arg(long, value_name = "URL")]
    homeserver: Option<String>,
    /// Trust the homeserver's certificate by this PEM file alone
    #[arg(long, value_name = "FILE")]
    homeserver_ca: Option<String>,
}

/// How to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// OAuth 2.0 where the homeserver has it and no password was given, else a password
    Any,
    /// With a password
    Password,
    /// By OAuth 2.0 device authorization
    Oauth,
}

pub(super) fn run(args: LoginArgs) -> Result<(), Failure> {
    let settings = args.place.settings(&args.token.settings())?;
    let desk = Desk::of(&settings)?;
    let user_id = desk.change(Command::Show { name: args.name.clone() })?.user_id;
    let Some(tokens) = args.token.obtain(&settings, &user_id, args.name.as_str())? else {
        return Err(
            Failure::usage("it is not said where the token comes from").hint("--login, or --token-file FILE")
        );
    };
    desk.change(Command::Renew { name: args.name.clone(), tokens: Box::new(tokens) })?;
    output::tell(format_args!("device {} has another access token", args.name));
    Ok(())
}

impl TokenArgs {
    /// What of it are settings of the gateway too.
    pub(super) fn settings(&self) -> [(&'static str, Option<&String>); 2] {
        [("homeserver", self.homeserver.as_ref()), ("homeserver-ca", self.homeserver_ca.as_ref())]
    }

    /// The tokens, found to be this user's; none where none were asked for.
    pub(super) fn obtain(
        &self,
        settings: &Settings,
        user_id: &str,
        name: &str,
    ) -> Result<Option<Tokens>, Failure> {
        if self.token_file.is_none() && self.login.is_none() {
            return Ok(None);
        }
        let given = match &self.token_file {
            Some(path) => {
                let token = password::read_line(path, "access token")?;
                Some(Tokens { access: Secret::new(token.trim()), ..Tokens::access("") })
            }
            None => None,
        };
        if let (Some(tokens), true) = (&given, self.unchecked) {
            return Ok(Some(tokens.clone()));
        }
        let homeserver = homeserver(settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(format_args!("cannot start: {error}")))?;
        let tokens = runtime.block_on(async {
            let tokens = match given {
                Some(tokens) => tokens,
                None => self.log_in(&homeserver, user_id, name).await?,
            };
            homeserver.check(&tokens, user_id).await.map_err(explain)?;
            Ok(tokens)
        });
        runtime.shutdown_background();
        tokens.map(Some)
    }

    async fn log_in(&self, homeserver: &Homeserver, user_id: &str, name: &str) -> Result<Tokens, Failure> {
        let clock = Clock::start();
        let flows = homeserver.flows().await.map_err(explain)?;
        let wants_password = self.login == Some(Way::Password) || self.password_file.is_some();
        let display_name = format!("{name} (lowband)");
        match flows.oauth {
            Some(server) if !wants_password => {
                return by_browser(homeserver, server, &display_name, &clock).await;
            }
            None if self.login == Some(Way::Oauth) => {
                return Err(Failure::new("the homeserver offers no OAuth 2.0 device authorization")
                    .hint("--login=password, or --token-file with a token from elsewhere"));
            }
            _ => {}
        }
        if !flows.password {
            return Err(Failure::new("the homeserver offers no login with a password")
                .hint("--login=oauth, or --token-file with a token from elsewhere"));
        }
        let password = match &self.password_file {
            Some(path) => password::read_line(path, "password")?,
            None => password::ask(&format!("password of {user_id}: "))?,
        };
        homeserver.password(user_id, &password, &display_name, clock.now()).await.map_err(explain)
    }
}

async fn by_browser(
    homeserver: &Homeserver,
    server: oauth::Server,
    display_name: &str,
    clock: &Clock,
) -> Result<Tokens, Failure> {
    let device_id = matrix_device_id()?;
    let (prompt, pending) = homeserver.authorize(server, display_name, &device_id).await.map_err(explain)?;
    let minutes = prompt.life.as_secs() / 60;
    match prompt.complete_url {
        Some(url) => output::tell(format_args!(
            "open {url} within {minutes} minutes, and allow the device if the code there is {}",
            prompt.code
        )),
        None => output::tell(format_args!(
            "open {} within {minutes} minutes, and enter the code {}",
            prompt.url, prompt.code
        )),
    }
    homeserver.wait(pending, clock.now()).await.map_err(explain)
}

/// A Matrix device id: ten letters, as homeservers make them.
fn matrix_device_id() -> Result<String, Failure> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(format_args!("cannot get random bytes: {error}")))?;
    Ok(bytes.iter().map(|byte| char::from(b'A' + byte % 26)).collect())
}

fn homeserver(settings: &Settings) -> Result<Homeserver, Failure> {
    let value = |name: &str| settings.get(name).and_then(|given| given.values.last());
    let Some(url) = value("homeserver") else {
        return Err(Failure::usage("no homeserver given")
            .hint("--homeserver URL, or --config FILE as the gateway has it"));
    };
    let url = homeserver_url(url).map_err(Failure::usage)?;
    let config = upstream::Config {
        homeserver_ca: value("homeserver-ca").map(PathBuf::from),
        ..upstream::Config::new(url)
    };
    Homeserver::new(config).map_err(|error| Failure::new(error).hint("--homeserver-ca names another file"))
}

fn explain(error: LoginError) -> Failure {
    let failure = Failure::new(&error);
    match error {
        LoginError::OtherUser { owner, .. } => failure.hint(format_args!("--user {owner}, or another token")),
        LoginError::Refused { status: 401, .. } => {
            failure.hint("the token has ended, or is of another homeserver")
        }
        LoginError::Refused { status: 403, .. } => {
            failure.hint("user and password have to be the homeserver's own")
        }
        LoginError::Unreachable { .. } => failure.hint("the gateway will need it too: see --homeserver"),
        LoginError::Answer { .. } => {
            failure.hint("what answers there may be no homeserver: see --homeserver")
        }
        LoginError::Expired | LoginError::Denied => failure.hint("the same command begins anew"),
        _ => failure,
    }
}
