//! `tonnage credential-provider`: gives the kubelet of Kubernetes credentials for the images of a registry.
//!
//! Owns: arguments, and which credentials are given. Invariant: only the registries of the command line get any.

use std::io::{self, Read as _};
use std::path::PathBuf;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::input;
use crate::kubelet::{
    Credentials, ProviderConfiguration, REQUEST_BYTES_MAX, Registry, Request, respond,
};
use crate::output;

/// Arguments of `credential-provider`.
#[derive(Debug, clap::Args)]
pub(crate) struct CredentialProvider {
    /// A registry that gets credentials: the host and port with which names of its images begin; can be repeated
    // Not parsed by clap, which quotes what is wrong: it may have a password.
    #[arg(long, value_name = "HOST[:PORT]", required = true)]
    registry: Vec<String>,
    /// User name, for pods whose service account's token the kubelet does not send
    #[arg(long, value_name = "NAME", requires = "password_file")]
    username: Option<String>,
    /// File with the password of --username, or with a key of the registry
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// Print the configuration of the kubelet instead, with these options
    #[arg(long)]
    print_config: bool,
    /// With --print-config: let the kubelet send tokens of service accounts for this audience
    #[arg(long, value_name = "AUDIENCE", requires = "print_config")]
    audience: Option<String>,
}

/// Answers one request of the kubelet.
pub(crate) fn run(arguments: &CredentialProvider) -> Result<Exit, Failure> {
    let registries = arguments.registry.iter().map(|text| text.parse());
    let registries = registries.collect::<Result<Vec<Registry>, _>>();
    let registries = registries.map_err(|why| usage(format!("--registry: {why}")))?;
    if arguments.print_config {
        return print_config(arguments, &registries);
    }
    let mut bytes = Vec::new();
    let read = io::stdin()
        .lock()
        .take(REQUEST_BYTES_MAX + 1)
        .read_to_end(&mut bytes);
    read.map_err(|why| usage(format!("the request cannot be read: {why}")))?;
    if bytes.len() as u64 > REQUEST_BYTES_MAX {
        return Err(usage("the request is too long"));
    }
    let request = Request::parse(&bytes).map_err(usage)?;
    let response = match request.registry(&registries) {
        Some(registry) => {
            let credentials = match request.token() {
                Some(token) => token,
                None => of_file(arguments)?,
            };
            respond(Some((registry, &credentials)))
        }
        None => respond(None),
    };
    let response = response.map_err(io::Error::from)?;
    output::result(&response.to_string())?;
    Ok(Exit::Done)
}

/// Returns the credentials for a pod without a token.
fn of_file(arguments: &CredentialProvider) -> Result<Credentials, Failure> {
    let (Some(username), Some(file)) = (&arguments.username, &arguments.password_file) else {
        return Err(usage("the request has no service account's token, and there is no password")
            .hint("to get tokens: set tokenAttributes in the configuration of the kubelet (--print-config --audience)")
            .hint("to use a password: --username NAME --password-file FILE"));
    };
    let password = input::password_from_file(file)?;
    Ok(Credentials::of_file(username, password))
}

fn print_config(arguments: &CredentialProvider, registries: &[Registry]) -> Result<Exit, Failure> {
    let file = arguments.password_file.as_deref();
    let file = file.map(|file| {
        let path = file.to_str().filter(|_| file.is_absolute());
        path.ok_or_else(|| {
            usage("--password-file must be an absolute path: the kubelet has another directory")
        })
    });
    let password = arguments.username.as_deref().zip(file.transpose()?);
    if password.is_none() && arguments.audience.is_none() {
        return Err(usage("there are no credentials to configure")
            .hint("for tokens of service accounts: --audience AUDIENCE")
            .hint("for a password: --username NAME --password-file FILE"));
    }
    let configuration = ProviderConfiguration {
        registries,
        audience: arguments.audience.as_deref(),
        password,
    };
    output::result(configuration.to_string().trim_end())?;
    Ok(Exit::Done)
}

fn usage(what: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, what)
}
