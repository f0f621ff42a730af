//! Canonical's Ubuntu images.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::types::Architecture;
use super::{ApiError, Call, Params, Xml, authorize_list, filter, page, stable_id};
use crate::cloud::iso;

/// Canonical's account.
const OWNER: &str = "099720109477";

/// An image that a public parameter names.
pub(crate) struct PublicImage {
    release: &'static str,
    codename: &'static str,
    pub(super) architecture: Architecture,
    volume: &'static str,
    serial: &'static str,
}

/// The images of every region.
pub(crate) const PUBLIC_IMAGES: [PublicImage; 4] = [
    image("22.04", "jammy", Architecture::X86, "ebs-gp2", "20261101"),
    image("22.04", "jammy", Architecture::Arm, "ebs-gp2", "20261101"),
    image("24.04", "noble", Architecture::X86, "ebs-gp3", "20261108"),
    image("24.04", "noble", Architecture::Arm, "ebs-gp3", "20261108"),
];

const fn image(
    release: &'static str,
    codename: &'static str,
    architecture: Architecture,
    volume: &'static str,
    serial: &'static str,
) -> PublicImage {
    PublicImage {
        release,
        codename,
        architecture,
        volume,
        serial,
    }
}

/// Name of the root device of every image.
pub(super) const ROOT_DEVICE: &str = "/dev/sda1";

impl PublicImage {
    /// The image's id in a region, the same in every sandbox.
    pub fn id(&self, region: &str) -> String {
        stable_id("ami", region, &self.parameter())
    }

    /// The public parameter that holds the id.
    pub fn parameter(&self) -> String {
        format!(
            "/aws/service/canonical/ubuntu/server/{}/stable/current/{}/hvm/{}/ami-id",
            self.release,
            self.debian_architecture(),
            self.volume
        )
    }

    /// When Canonical published it.
    pub fn created(&self) -> Timestamp {
        let (year, rest) = self.serial.split_at(4);
        let (month, day) = rest.split_at(2);
        format!("{year}-{month}-{day}T06:00:00Z")
            .parse()
            .expect("the serial numbers above are dates")
    }

    fn debian_architecture(&self) -> &'static str {
        match self.architecture {
            Architecture::X86 => "amd64",
            Architecture::Arm => "arm64",
        }
    }

    fn name(&self) -> String {
        let volume = if self.volume == "ebs-gp2" {
            "hvm-ssd"
        } else {
            "hvm-ssd-gp3"
        };
        format!(
            "ubuntu/images/{volume}/ubuntu-{}-{}-{}-server-{}",
            self.codename,
            self.release,
            self.debian_architecture(),
            self.serial
        )
    }

    /// The type of the root volume.
    pub(super) fn volume_type(&self) -> &'static str {
        self.volume.trim_start_matches("ebs-")
    }
}

/// The image of an id.
pub(super) fn find(region: &str, id: &str) -> Option<&'static PublicImage> {
    PUBLIC_IMAGES.iter().find(|image| image.id(region) == id)
}

/// The image of an id, or EC2's error.
pub(super) fn require(region: &str, id: &str) -> Result<&'static PublicImage, ApiError> {
    let digits = id.strip_prefix("ami-").unwrap_or_default();
    if !matches!(digits.len(), 8 | 17) || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(ApiError::new(
            "InvalidAMIID.Malformed",
            format!("Invalid id: \"{id}\" (expecting \"ami-...\")"),
        ));
    }
    find(region, id).ok_or_else(|| {
        ApiError::new(
            "InvalidAMIID.NotFound",
            format!("The image id '[{id}]' does not exist"),
        )
    })
}

pub(super) fn describe(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    authorize_list(call, "DescribeImages")?;
    let ids = params.list("ImageId");
    for id in &ids {
        require(&call.region, id)?;
    }
    let owners = params.list("Owner");
    let filters = filter::read(params);
    let region = call.region.clone();
    let mut shown = Vec::new();
    for image in &PUBLIC_IMAGES {
        let id = image.id(&region);
        let owned = owners.is_empty()
            || owners
                .iter()
                .any(|owner| owner == OWNER || owner == "amazon");
        let passes = filter::passes(&filters, &BTreeMap::new(), |name| {
            Some(vec![match name {
                "image-id" => id.clone(),
                "name" => image.name(),
                "architecture" => image.architecture.name().to_owned(),
                "owner-id" => OWNER.to_owned(),
                "state" => "available".to_owned(),
                "root-device-type" => "ebs".to_owned(),
                "virtualization-type" => "hvm".to_owned(),
                _ => return None,
            }])
        })?;
        if owned && passes && (ids.is_empty() || ids.contains(&id)) {
            shown.push((id, image));
        }
    }
    let (shown, token) = page(params, shown, 1..=1000)?;
    let mut xml = Xml::default();
    xml.list("imagesSet", "item", shown, |xml, (id, image)| {
        write(xml, &id, image)
    })
    .optional("nextToken", token);
    Ok(xml)
}

fn write(xml: &mut Xml, id: &str, image: &PublicImage) {
    xml.text("imageId", id)
        .text("imageLocation", format!("{OWNER}/{}", image.name()))
        .text("imageState", "available")
        .text("imageOwnerId", OWNER)
        .text("creationDate", iso(image.created()))
        .text("isPublic", true)
        .text("architecture", image.architecture.name())
        .text("imageType", "machine")
        .text("name", image.name())
        .text(
            "description",
            format!(
                "Canonical, Ubuntu, {}, {}, sandbox",
                image.release,
                image.debian_architecture()
            ),
        )
        .text("rootDeviceType", "ebs")
        .text("rootDeviceName", ROOT_DEVICE)
        .text("virtualizationType", "hvm")
        .text("hypervisor", "xen")
        .text("enaSupport", true)
        .text("platformDetails", "Linux/UNIX")
        .element("blockDeviceMapping", |xml| {
            xml.element("item", |xml| {
                xml.text("deviceName", ROOT_DEVICE).element("ebs", |xml| {
                    xml.text("volumeSize", 8)
                        .text("deleteOnTermination", true)
                        .text("volumeType", image.volume_type())
                        .text("encrypted", false);
                });
            });
        });
}
