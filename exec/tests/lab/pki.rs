//! A lab's certificates, made for a test.

use livemig_exec::Identity;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use std::path::{Path, PathBuf};

/// A certificate authority, with a folder for what it issues.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
    file: PathBuf,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = written(folder.path(), "ca.pem", &certificate.pem());
        Authority { folder, issuer: Issuer::new(params, key), certificate, file }
    }

    /// Somebody with this name, who trusts certificates of `trusted`.
    pub(crate) fn issue(&self, name: &str, trusted: &Authority) -> Identity {
        self.certify(name, trusted, &CertificateParams::new(vec![name.to_owned()]).unwrap())
    }

    /// Somebody whose certificate was good once.
    pub(crate) fn expired(&self, name: &str) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.certify(&format!("expired-{name}"), self, &params)
    }

    fn certify(&self, file: &str, trusted: &Authority, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let write = |extension: &str, text: &str| written(self.folder.path(), &format!("{file}.{extension}"), text);
        Identity { cert: write("pem", &certificate.pem()), key: write("key", &key.serialize_pem()), ca: trusted.file.clone() }
    }

    /// Trust in both of two.
    pub(crate) fn with(&self, other: &Authority) -> Authority {
        let both = Authority::new("both");
        std::fs::write(&both.file, self.certificate.pem() + &other.certificate.pem()).unwrap();
        both
    }

    pub(crate) fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        roots
    }
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}
