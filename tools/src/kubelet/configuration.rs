//! The file with which the kubelet runs the provider (`kubelet.config.k8s.io/v1`, `CredentialProviderConfig`).
//!
//! Owns: its text. Strings are written as JSON, which is YAML: no value of an argument can add a line.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::protocol::{API_VERSION, PASSWORD_CACHE, duration};
use super::registry::Registry;

/// Name of the provider, which is that of the program in the directory of providers.
const NAME: &str = "tonnage";

/// What the file says.
#[derive(Debug)]
pub(crate) struct ProviderConfiguration<'a> {
    /// The registries for whose images the kubelet runs the provider.
    pub(crate) registries: &'a [Registry],
    /// Audience of the tokens that the kubelet requests for pods.
    pub(crate) audience: Option<&'a str>,
    /// User and file of a password, for pods without a token.
    pub(crate) password: Option<(&'a str, &'a str)>,
}

impl fmt::Display for ProviderConfiguration<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "# Put the program tonnage into a directory of providers on every node, and start the kubelet with\n\
             #   --image-credential-provider-config=FILE      (this file)\n\
             #   --image-credential-provider-bin-dir=DIR      (the directory)\n",
        )?;
        if let Some(audience) = self.audience {
            let audience = quoted(audience);
            write!(
                f,
                "# Tokens of service accounts need Kubernetes 1.34. Nodes need the right to request them: bind to the\n\
                 # group system:nodes a ClusterRole with this rule:\n\
                 #   - {{apiGroups: [\"\"], resources: [{audience}], verbs: [request-serviceaccounts-token-audience]}}\n"
            )?;
        }
        f.write_str(
            "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n",
        )?;
        writeln!(
            f,
            "  - name: {NAME}\n    apiVersion: {API_VERSION}\n    matchImages:"
        )?;
        for registry in self.registries {
            writeln!(f, "      - {}", quoted(registry.as_str()))?;
        }
        let cache = if self.password.is_some() {
            PASSWORD_CACHE
        } else {
            Duration::ZERO
        };
        writeln!(f, "    defaultCacheDuration: {}", duration(cache))?;
        writeln!(f, "    args:")?;
        for argument in self.arguments() {
            writeln!(f, "      - {}", quoted(argument))?;
        }
        let Some(audience) = self.audience else {
            return Ok(());
        };
        // A pod without a service account can use the password, if there is one.
        let is_required = self.password.is_none();
        write!(
            f,
            "    tokenAttributes:\n      serviceAccountTokenAudience: {}\n      cacheType: Token\n      \
             requireServiceAccount: {is_required}",
            quoted(audience)
        )?;
        f.write_char('\n')
    }
}

impl ProviderConfiguration<'_> {
    /// Returns the arguments of the program.
    fn arguments(&self) -> Vec<&str> {
        let mut arguments = vec!["credential-provider"];
        for registry in self.registries {
            arguments.extend(["--registry", registry.as_str()]);
        }
        if let Some((name, file)) = self.password {
            arguments.extend(["--username", name, "--password-file", file]);
        }
        arguments
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: the whole text for tokens of service accounts, which is what the kubelet reads.
    #[test]
    fn tokens_are_configured() {
        let registries = ["registry.example:5000".parse().unwrap()];
        let configuration = ProviderConfiguration {
            registries: &registries,
            audience: Some("registry.example"),
            password: None,
        };
        let expected = "\
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: tonnage
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    matchImages:
      - \"registry.example:5000\"
    defaultCacheDuration: 0s
    args:
      - \"credential-provider\"
      - \"--registry\"
      - \"registry.example:5000\"
    tokenAttributes:
      serviceAccountTokenAudience: \"registry.example\"
      cacheType: Token
      requireServiceAccount: true
";
        let text = configuration.to_string();
        let (comments, rest) = text.split_at(text.find("apiVersion").unwrap());
        assert_eq!(rest, expected);
        assert!(
            comments.lines().all(|line| line.starts_with('#')),
            "{comments}"
        );
        assert!(
            comments.contains("--image-credential-provider-bin-dir"),
            "{comments}"
        );
    }

    /// Guards: a password in a file is named in the arguments, and no value can add a line.
    #[test]
    fn a_password_is_configured() {
        let registries = ["a.b".parse().unwrap()];
        let mut configuration = ProviderConfiguration {
            registries: &registries,
            audience: None,
            password: Some(("ci", "/etc/a\nb")),
        };
        let text = configuration.to_string();
        assert!(
            text.contains("      - \"/etc/a\\nb\"\n")
                && text.contains("defaultCacheDuration: 300s"),
            "{text}"
        );
        assert!(!text.contains("tokenAttributes"), "{text}");
        configuration.audience = Some("a\nb");
        let text = configuration.to_string();
        assert!(
            text.ends_with("requireServiceAccount: false\n") && !text.contains("\nb"),
            "{text}"
        );
    }
}
