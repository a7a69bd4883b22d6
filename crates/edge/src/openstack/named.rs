//! What people call by a name, and a cloud may have once, never or several times.

use super::compute::Flavor;
use super::error::CloudError;
use super::image::Image;
use super::network::{Network, SecurityGroup};
use super::session::Cloud;

/// Something that settings call by its name or its id.
pub trait Named {
    /// What it is, for people.
    const KIND: &'static str;

    /// Its id.
    fn id(&self) -> &str;

    /// Its name.
    fn name(&self) -> &str;
}

macro_rules! named {
    ($kind:literal, $thing:ty) => {
        impl Named for $thing {
            const KIND: &'static str = $kind;

            fn id(&self) -> &str {
                &self.id
            }

            fn name(&self) -> &str {
                &self.name
            }
        }
    };
}

named!("flavor", Flavor);
named!("network", Network);
named!("security group", SecurityGroup);

/// There is not exactly one thing of a name that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct NotOne {
    /// What was looked for.
    pub what: String,
    /// What there is.
    pub why: String,
}

/// The one of all that has this id or this name.
pub fn one<'t, T: Named>(wanted: &str, all: &'t [T]) -> Result<&'t T, NotOne> {
    let not_one = |why| NotOne { what: format!("find the {} {wanted}", T::KIND), why };
    if let Some(thing) = all.iter().find(|thing| thing.id() == wanted) {
        return Ok(thing);
    }
    let mut named = all.iter().filter(|thing| thing.name() == wanted);
    match (named.next(), named.next()) {
        (Some(thing), None) => Ok(thing),
        (Some(_), Some(_)) => Err(not_one("several have this name: use its id".to_owned())),
        (None, _) => Err(not_one(listed(all.iter().map(Named::name)))),
    }
}

/// What there is, for who asked for something else.
pub fn listed<'t>(names: impl Iterator<Item = &'t str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        return "the cloud shows us none".to_owned();
    }
    format!("the cloud has {}", names.join(", "))
}

impl Cloud {
    /// The newest image of this name that can be used, or else the one with this id.
    pub async fn image_named(&self, wanted: &str) -> Result<Result<Image, NotOne>, CloudError> {
        let named = self.images(&[("name", wanted), ("status", "active")]).await?;
        let newest = named.into_iter().max_by(|a, b| a.created_at.cmp(&b.created_at));
        if let Some(image) = newest {
            return Ok(Ok(image));
        }
        let why = match self.image(wanted).await? {
            Some(image) if image.status == "active" => return Ok(Ok(image)),
            Some(image) => format!("it is {}", image.status),
            None => {
                "the cloud has none of this name or id; `openstack image list` shows what there is"
                    .to_owned()
            }
        };
        Ok(Err(NotOne { what: format!("find the image {wanted}"), why }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_unique_and_a_name_may_not_be() {
        let flavor = |id: &str, name: &str| Flavor {
            id: id.into(),
            name: name.into(),
            vcpus: 1,
            ram: 1,
            disk: 0,
        };
        let all =
            [flavor("1", "small"), flavor("2", "twice"), flavor("3", "twice"), flavor("4", "2")];
        let found =
            |wanted: &str| one(wanted, &all).map(|f| f.id.as_str()).map_err(|e| e.to_string());
        assert_eq!(found("small"), Ok("1"));
        assert_eq!(found("3"), Ok("3"));
        assert_eq!(found("2"), Ok("2"), "an id goes before a name");
        let several = "find the flavor twice: several have this name: use its id";
        assert_eq!(found("twice"), Err(several.to_owned()));
        let none = "find the flavor huge: the cloud has small, twice, twice, 2";
        assert_eq!(found("huge"), Err(none.to_owned()));
        let nothing = one::<Network>("x", &[]).unwrap_err();
        assert_eq!(nothing.why, "the cloud shows us none");
    }
}
