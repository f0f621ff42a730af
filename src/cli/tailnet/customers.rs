//! The customers a command is about: those that are named, or all that are found in AWS. The tailnet knows no region: whoever
//! lives in another one is one of its customers too.

use std::collections::{BTreeMap, BTreeSet};

use crate::aws::Aws;
use crate::cli::target::Target;
use crate::customer::CustomerId;
use crate::home::{Home, Known};
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::text;

/// The customers of an account, as far as AWS says.
pub(super) struct Found {
    /// Those with a parameter or a host in this region.
    pub(super) here: BTreeSet<CustomerId>,
    /// Those with a role, of which nothing is in this region, with where they live.
    pub(super) elsewhere: BTreeMap<CustomerId, Known>,
}

impl Found {
    /// Asks AWS. That roles cannot be read is said: then nobody knows who lives elsewhere.
    pub(super) async fn read(aws: &Aws, terminal: &Terminal) -> Result<Self, Failure> {
        let (here, homes) = futures::join!(aws.customers(), aws.homes());
        let here = here?;
        let elsewhere = match homes {
            Ok(homes) => homes
                .into_iter()
                .filter(|(id, known)| !here.contains(id) && known.home != Home::of(aws))
                .collect(),
            Err(error) => {
                let failure = Failure::from(error);
                terminal.warn(format!(
                    "whether customers live in other regions is not known: {}",
                    failure.in_a_line()
                ));
                BTreeMap::new()
            }
        };
        Ok(Self { here, elsewhere })
    }

    /// All of them.
    pub(super) fn everywhere(self) -> BTreeSet<CustomerId> {
        let mut all = self.here;
        all.extend(self.elsewhere.into_keys());
        all
    }

    /// A line for each other place with customers.
    fn places(&self) -> Vec<String> {
        let mut places: BTreeMap<&Home, Vec<&str>> = BTreeMap::new();
        for (id, known) in &self.elsewhere {
            places.entry(&known.home).or_default().push(id.as_str());
        }
        places
            .into_iter()
            .map(|(home, ids)| format!("{home}: {}", text::some_of(&ids)))
            .collect()
    }
}

/// The customers that are named, or all that are found: where `all`, also those that live elsewhere.
pub(super) async fn named_or_found(
    named: &[CustomerId],
    all: bool,
    target: &Target,
    terminal: &Terminal,
) -> Result<BTreeSet<CustomerId>, Failure> {
    if !named.is_empty() {
        return Ok(named.iter().cloned().collect());
    }
    let aws = target.aws(terminal).await?;
    let found = Found::read(&aws, terminal).await?;
    let places = found.places();
    if found.here.is_empty() && !places.is_empty() {
        let regions: BTreeSet<&str> = found
            .elsewhere
            .values()
            .map(|known| known.home.region.as_str())
            .collect();
        let regions: Vec<&str> = regions.into_iter().collect();
        let mut failure = Failure::words(
            Kind::Precondition,
            format!(
                "no customer lives in {}, and others do elsewhere",
                Home::of(&aws)
            ),
        )
        .hint(format!(
            "pass --region {}, or name the customers",
            regions.join(" or --region ")
        ));
        failure.evidence = places;
        return Err(failure);
    }
    terminal.say(match found.here.len() {
        0 => "No customer is found: neither a parameter beneath /m8trx nor a host with the tag Customer".to_owned(),
        1 => "1 customer is found".to_owned(),
        count => format!("{count} customers are found"),
    });
    for place in places {
        let what = if all {
            "also in it"
        } else {
            "left as they are"
        };
        terminal.say(format!("Customers of {place} ({what})"));
    }
    Ok(if all { found.everywhere() } else { found.here })
}
