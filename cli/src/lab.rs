//! The file that says where standing agents are: `agents.toml`.

use anyhow::{Context, Result, bail};
use livemig_exec::run::{Lab, Remote};
use livemig_exec::{Identity, Security};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Agents of a file, at most; and bytes of it.
const MOST: (usize, u64) = (1000, 1 << 20);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// What this coordinator proves who it is with. Paths are as seen from the file.
    tls: Option<Tls>,
    /// The agents, by the names of the scenario's hosts.
    agent: BTreeMap<String, Agent>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Agent {
    /// Where it listens: `HOST:PORT`.
    address: String,
    /// The name in its certificate, when it is not the host of the address.
    name: Option<String>,
    /// The address by which other agents reach it for migrations, when not the same.
    migration: Option<IpAddr>,
}

/// Reads the file. Without `insecure` it must say what is proven with.
///
/// # Errors
/// When the file, or a certificate that it names, cannot be read or is wrong.
pub(crate) fn read(path: &Path, insecure: bool) -> Result<Lab> {
    let named = || format!("cannot read {}", path.display());
    if fs::metadata(path).with_context(named)?.len() > MOST.1 {
        bail!("{}: it is too long for a list of agents", path.display());
    }
    let text = fs::read_to_string(path).with_context(named)?;
    let file: File = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
    if file.agent.len() > MOST.0 {
        bail!("{}: {} agents; at most {} are allowed", path.display(), file.agent.len(), MOST.0);
    }
    let security = match (file.tls, insecure) {
        (Some(tls), false) => {
            let directory = path.parent().unwrap_or(Path::new("."));
            let at = |file: PathBuf| directory.join(file);
            Security::Tls(Identity { cert: at(tls.cert), key: at(tls.key), ca: at(tls.ca) }.load()?)
        }
        (None, true) => Security::None,
        (Some(_), true) => bail!("{}: `--insecure` uses no certificates; take [tls] out", path.display()),
        (None, false) => bail!("{}: there is no [tls] with cert, key and ca; `--insecure` does without", path.display()),
    };
    let agents = file
        .agent
        .into_iter()
        .map(|(host, agent)| (host, Remote { address: agent.address, name: agent.name, migration: agent.migration }));
    Ok(Lab { security, agents: agents.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, insecure: bool) -> Result<Lab> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agents.toml");
        fs::write(&path, text).unwrap();
        read(&path, insecure)
    }

    #[test]
    fn agents_are_read_and_certificates_are_wanted() {
        let text = "[agent.src]\naddress = 'lab1:7000'\n[agent.dst]\naddress = '10.0.0.2:7000'\nname = 'lab2'\nmigration = '192.168.7.2'\n";
        let lab = parse(text, true).unwrap();
        assert!(matches!(lab.security, Security::None));
        let expected = Remote {
            address: "10.0.0.2:7000".to_owned(),
            name: Some("lab2".to_owned()),
            migration: Some(IpAddr::from([192, 168, 7, 2])),
        };
        assert_eq!(lab.agents["dst"], expected);
        assert_eq!(lab.agents["src"].name, None);

        let wrong = |text: &str, insecure| format!("{:#}", parse(text, insecure).unwrap_err());
        assert!(wrong(text, false).contains("there is no [tls]"));
        let tls = format!("[tls]\ncert = 'c.pem'\nkey = 'c.key'\nca = 'ca.pem'\n{text}");
        assert!(wrong(&tls, false).contains("c.pem"), "{}", wrong(&tls, false));
        assert!(wrong(&tls, true).contains("take [tls] out"));
        assert!(wrong("[agent.src]\nadress = 'x'\n", true).contains("adress"));
        assert!(read(Path::new("/nowhere/agents.toml"), true).is_err());
    }
}
