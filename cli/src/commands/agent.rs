//! `livemig agent`: a host of other people's scenarios.

use crate::args::AgentArgs;
use crate::failure::Answer;
use crate::stdout::Output;
use anyhow::{Context, Result, bail};
use livemig_exec::agent::{Inherited, Standing, serve_inherited_with};
use livemig_exec::run::Launch;
use livemig_exec::{Identity, Security};
use std::ffi::OsString;
use std::net::SocketAddr;

pub(super) fn run(args: &AgentArgs) -> Result<Answer> {
    match args.listen {
        Some(address) => stand(args, address),
        None => serve(args),
    }
}

/// Serves the coordinator at standard input until it hangs up.
fn serve(args: &AgentArgs) -> Result<Answer> {
    let security = identity(args).map_or(Ok(Security::None), |identity| identity.load().map(Security::Tls))?;
    // Only an agent that stands somewhere is told where to listen.
    let outlive: Option<fn(&str)> = args.migrations_at.map(|_| (|news: &str| eprintln!("{news}")) as fn(&str));
    serve_inherited_with(&Inherited { security, listen: args.migrations_at, outlive })
        .context("an agent is started by `livemig exec`, or waits with --listen")?;
    Ok(Answer::Done)
}

/// Waits for coordinators, and starts an agent for each.
fn stand(args: &AgentArgs, address: SocketAddr) -> Result<Answer> {
    let (security, mut words) = match identity(args) {
        Some(identity) => {
            let files = [("--cert", &identity.cert), ("--key", &identity.key), ("--ca", &identity.ca)];
            let words = files.into_iter().flat_map(|(option, file)| [option.into(), file.into()]);
            (Security::Tls(identity.load()?), words.collect::<Vec<OsString>>())
        }
        None if args.insecure => (Security::None, vec!["--insecure".into()]),
        None => bail!("--cert, --key and --ca say who this agent is and whom it lets in; --insecure does without"),
    };
    livemig_exec::guest::kvm_available().context("real guests need KVM; `livemig doctor` says more")?;
    words.extend(["--migrations-at".into(), SocketAddr::new(address.ip(), args.migration_port).to_string().into()]);
    let program = std::env::current_exe().context("this program cannot be found")?;
    let args = [OsString::from("agent")].into_iter().chain(words).collect();
    let standing = Standing::listen(address, security, Launch { program, args, env: Vec::new() })?;
    Output::new(false).write(&format!("listening at {}\n", standing.address()?))?;
    standing.serve(|news| eprintln!("{news}"))?;
    Ok(Answer::Done)
}

fn identity(args: &AgentArgs) -> Option<Identity> {
    let (cert, key, ca) = (args.cert.clone()?, args.key.clone()?, args.ca.clone()?);
    Some(Identity { cert, key, ca })
}
