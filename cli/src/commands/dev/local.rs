//! The control plane and the edge of `verge dev`, both in this process, on a store that is gone with
//! it. Knows no site.

use super::DevArgs;
use crate::client::{Call, Client};
use crate::credentials::{self, Credentials};
use crate::error::CliError;
use crate::site_file;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use verge_config::api::{NewToken, Scope, TokenCreated};
use verge_config::process::Secret;
use verge_config::process::control::ControlConfig;
use verge_config::process::edge::{
    CacheStorage, EdgeConfig, EdgeLimits, HandlerHost, Join, Listen, Source,
};
use verge_config::tail::TailLine;
use verge_control::Control;
use verge_edge::Addresses;

/// The file of secrets beside a site file; hidden, so that it is not taken for one of its sources.
const SECRETS: &str = ".secrets.toml";
/// How long both may take to end.
const DRAIN: Duration = Duration::from_secs(5);

/// A control plane and an edge.
pub(super) struct Local {
    credentials: Credentials,
    shutdown: CancellationToken,
    control: JoinHandle<()>,
    edge: JoinHandle<Result<(), String>>,
    /// Where the edge listens.
    pub(super) addresses: Addresses,
    /// Store, blobs and the edge's state; removed when it is dropped.
    _folder: TempDir,
}

fn failed(what: &str, error: impl Display) -> CliError {
    CliError::Dev(format!("{what}: {error}"))
}

impl Local {
    /// Starts both; the edge enrols by itself, and tells `requests` of what it serves.
    pub(super) async fn start(
        args: &DevArgs,
        requests: mpsc::Sender<TailLine>,
    ) -> Result<Local, CliError> {
        let folder = tempfile::Builder::new().prefix("verge-dev").tempdir();
        let folder = folder.map_err(|error| failed("no folder for the local state", error))?;
        let data = folder.path().join("control");
        let made = verge_control::init(&data).await;
        let made = made.map_err(|error| failed("the local control plane", error))?;
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.map_err(|error| failed("the local control plane", error))?;
        let address = listener.local_addr();
        let address = address.map_err(|error| failed("the local control plane", error))?;
        let control = Control::open(ControlConfig::new(&data, address)).await;
        let control = control.map_err(|error| failed("the local control plane", error))?;
        let shutdown = CancellationToken::new();
        let control = tokio::spawn(control.serve(listener, shutdown.clone()));
        let credentials = Credentials {
            control: credentials::parse_control(&format!("http://{address}"))?,
            token: Secret::new(made.admin_token),
        };
        let join = join_token(&Client::with(credentials.clone())?).await?;
        let config = edge_config(args, &credentials, join, &folder);
        let options = verge_edge::Options::of_this_program(args.port_file.clone(), false)
            .map_err(|error| failed("the local edge", error))?;
        let options =
            verge_edge::Options { development: true, requests: Some(requests), ..options };
        let (tell, told) = oneshot::channel();
        let edge = tokio::spawn({
            let shutdown = shutdown.clone();
            async move {
                let bound = |addresses: &Addresses| drop(tell.send(addresses.clone()));
                let ended = verge_edge::run_with(config, options, shutdown, bound).await;
                ended.map_err(|error| error.to_string())
            }
        });
        let addresses = Addresses::default();
        let mut local = Local { credentials, shutdown, control, edge, addresses, _folder: folder };
        match told.await {
            Ok(addresses) => local.addresses = addresses,
            // It ended before it listened, and says why.
            Err(_) => {
                let why = local.edge_ended().await;
                local.control.abort();
                why?;
            }
        }
        Ok(local)
    }

    /// A client of the control plane, as its admin.
    pub(super) fn client(&self) -> Result<Client, CliError> {
        Client::with(self.credentials.clone())
    }

    /// Waits until the edge ends, which it does by itself only when it fails.
    pub(super) async fn edge_ended(&mut self) -> Result<(), CliError> {
        match (&mut self.edge).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(message)) => Err(failed("the local edge", message)),
            Err(error) => Err(failed("the local edge", error)),
        }
    }

    /// Ends both, within bounds.
    pub(super) async fn stop(mut self) {
        self.shutdown.cancel();
        let both = async {
            if !self.edge.is_finished() {
                let _ = (&mut self.edge).await;
            }
            let _ = (&mut self.control).await;
        };
        let _ = tokio::time::timeout(DRAIN, both).await;
    }
}

async fn join_token(client: &Client) -> Result<Secret, CliError> {
    let new = NewToken {
        name: "dev".to_owned(),
        scopes: vec![Scope::Join],
        tenant: None,
        expires_in_seconds: None,
    };
    let created: TokenCreated = client.json(Call::post(&["v1", "tokens"]), Some(&new)).await?.1;
    Ok(Secret::new(created.token))
}

/// The site's secrets, where there are any beside its file.
fn secrets(args: &DevArgs) -> Option<PathBuf> {
    let path = site_file::folder(&args.site).join(SECRETS);
    path.exists().then_some(path)
}

fn edge_config(
    args: &DevArgs,
    credentials: &Credentials,
    join: Secret,
    folder: &TempDir,
) -> EdgeConfig {
    let url = credentials.control.as_str().trim_end_matches('/').to_owned();
    EdgeConfig {
        name: Arc::from("dev"),
        source: Source::Control { url, join: Join::Token(join) },
        state_dir: Some(folder.path().join("edge")),
        listen: Listen { http: vec![args.listen], https: Vec::new() },
        admin: Some(args.admin),
        certificates: Vec::new(),
        cache: CacheStorage { ram: 256 << 20, ..CacheStorage::default() },
        threads: None,
        // The site's author and the operator are one person.
        allow_private_origins: true,
        access_log: false,
        limits: EdgeLimits { drain: Duration::from_secs(1), ..EdgeLimits::default() },
        handlers: HandlerHost::default(),
        secrets: secrets(args),
        country_database: None,
    }
}
