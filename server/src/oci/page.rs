//! Pages of lists (distribution-spec, "Listing Tags").
//!
//! Owns: [`Page`], parsed from `n` and `last`. Refuses: pages larger than [`PAGE_MAX`] entries.

/// Most entries of one answer; also the default.
pub const PAGE_MAX: usize = 1000;

/// A requested part of a sorted list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Most entries; 0 is valid and gives an empty page.
    pub limit: usize,
    /// Only entries after this one.
    pub last: Option<String>,
}

/// The error that `n` is not a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the parameter n must be a number of entries, 0 or more")]
pub struct InvalidPage;

impl Page {
    /// Parses the page that a query asks for. A parameter without a value is ignored. A larger `n` is reduced to
    /// [`PAGE_MAX`]; the answer then has a Link.
    pub fn new(n: Option<&str>, last: Option<&str>) -> Result<Self, InvalidPage> {
        let limit = match n {
            None | Some("") => PAGE_MAX,
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().unwrap_or(PAGE_MAX).min(PAGE_MAX)
            }
            Some(_) => return Err(InvalidPage),
        };
        Ok(Self {
            limit,
            last: last.filter(|last| !last.is_empty()).map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: distribution-spec, "Listing Tags": `n` caps, `n=0` is legal, `last` works without `n`.
    #[test]
    fn pages() {
        let page = |limit, last: Option<&str>| {
            Ok(Page {
                limit,
                last: last.map(str::to_owned),
            })
        };
        assert_eq!(Page::new(None, None), page(PAGE_MAX, None));
        assert_eq!(Page::new(Some("0"), Some("a")), page(0, Some("a")));
        assert_eq!(
            Page::new(Some("99999999999999999999"), Some("")),
            page(PAGE_MAX, None)
        );
        assert_eq!(Page::new(Some(""), None), page(PAGE_MAX, None));
        for bad in ["-1", "+1", "a", "1.0"] {
            assert_eq!(Page::new(Some(bad), None), Err(InvalidPage), "{bad:?}");
        }
    }
}
