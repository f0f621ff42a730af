//! Instance types.

use std::collections::BTreeMap;

use super::{ApiError, Call, Params, Xml, authorize_list, filter, network, page};

/// Processor architectures, as images and instance types name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    X86,
    Arm,
}

impl Architecture {
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "arm64",
        }
    }
}

/// An instance type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InstanceType {
    pub name: String,
    pub architecture: Architecture,
    /// Built on the Nitro system, so that the latest console output can be read.
    pub nitro: bool,
    cpus: u32,
    memory_mib: u32,
}

struct Family {
    name: &'static str,
    architecture: Architecture,
    nitro: bool,
    burstable: bool,
    /// Memory for each processor of the sizes from `large` on.
    memory_per_cpu_mib: u32,
}

const fn family(
    name: &'static str,
    architecture: Architecture,
    nitro: bool,
    burstable: bool,
    memory_per_cpu_mib: u32,
) -> Family {
    Family {
        name,
        architecture,
        nitro,
        burstable,
        memory_per_cpu_mib,
    }
}

const FAMILIES: [Family; 15] = [
    family("t2", Architecture::X86, false, true, 4096),
    family("t3", Architecture::X86, true, true, 4096),
    family("t3a", Architecture::X86, true, true, 4096),
    family("t4g", Architecture::Arm, true, true, 4096),
    family("m5", Architecture::X86, true, false, 4096),
    family("m6i", Architecture::X86, true, false, 4096),
    family("m7i", Architecture::X86, true, false, 4096),
    family("m6g", Architecture::Arm, true, false, 4096),
    family("m7g", Architecture::Arm, true, false, 4096),
    family("c5", Architecture::X86, true, false, 2048),
    family("c6i", Architecture::X86, true, false, 2048),
    family("c7i", Architecture::X86, true, false, 2048),
    family("c7g", Architecture::Arm, true, false, 2048),
    family("r6i", Architecture::X86, true, false, 8192),
    family("r7g", Architecture::Arm, true, false, 8192),
];

/// Memory of the small sizes of the burstable families.
const SMALL_SIZES: [(&str, u32); 4] = [
    ("nano", 512),
    ("micro", 1024),
    ("small", 2048),
    ("medium", 4096),
];
const LARGE_SIZES: [(&str, u32); 4] =
    [("large", 2), ("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16)];

/// Every instance type that the sandbox has.
pub(super) fn all() -> Vec<InstanceType> {
    let mut types = Vec::new();
    for family in &FAMILIES {
        let mut add = |size: &str, cpus: u32, memory_mib: u32| {
            types.push(InstanceType {
                name: format!("{}.{size}", family.name),
                architecture: family.architecture,
                nitro: family.nitro,
                cpus,
                memory_mib,
            });
        };
        if family.burstable {
            for (size, memory_mib) in SMALL_SIZES {
                let cpus = if family.nitro || size == "medium" {
                    2
                } else {
                    1
                };
                add(size, cpus, memory_mib);
            }
        }
        let sizes = if family.burstable {
            &LARGE_SIZES[..3]
        } else {
            &LARGE_SIZES[..]
        };
        for (size, cpus) in sizes {
            add(size, *cpus, cpus * family.memory_per_cpu_mib);
        }
    }
    types
}

/// The type of a name, or EC2's error.
pub(super) fn require(name: &str) -> Result<InstanceType, ApiError> {
    all()
        .into_iter()
        .find(|kind| kind.name == name)
        .ok_or_else(|| {
            ApiError::new(
                "InvalidParameterValue",
                format!("Invalid value '{name}' for InstanceType."),
            )
        })
}

pub(super) fn describe(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    authorize_list(call, "DescribeInstanceTypes")?;
    let names = params.list("InstanceType");
    let unknown: Vec<&str> = names
        .iter()
        .filter(|name| require(name).is_err())
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        return Err(ApiError::new(
            "InvalidInstanceType",
            format!(
                "The following supplied instance types do not exist: [{}]",
                unknown.join(", ")
            ),
        ));
    }
    let filters = filter::read(params);
    let mut shown = Vec::new();
    for kind in all() {
        let passes = filter::passes(&filters, &BTreeMap::new(), |name| {
            Some(vec![match name {
                "instance-type" => kind.name.clone(),
                "processor-info.supported-architecture" => kind.architecture.name().to_owned(),
                "hypervisor" => hypervisor(&kind).to_owned(),
                "current-generation" => kind.nitro.to_string(),
                "vcpu-info.default-vcpus" => kind.cpus.to_string(),
                "memory-info.size-in-mib" => kind.memory_mib.to_string(),
                _ => return None,
            }])
        })?;
        if passes && (names.is_empty() || names.contains(&kind.name)) {
            shown.push(kind);
        }
    }
    let (shown, token) = page(params, shown, 5..=100)?;
    let mut xml = Xml::default();
    xml.list("instanceTypeSet", "item", shown, |xml, kind| {
        write(xml, &kind)
    })
    .optional("nextToken", token);
    Ok(xml)
}

fn hypervisor(kind: &InstanceType) -> &'static str {
    if kind.nitro { "nitro" } else { "xen" }
}

fn write(xml: &mut Xml, kind: &InstanceType) {
    xml.text("instanceType", &kind.name)
        .text("currentGeneration", kind.nitro)
        .text("bareMetal", false)
        .text("hypervisor", hypervisor(kind))
        .text("instanceStorageSupported", false)
        .text("burstablePerformanceSupported", kind.name.starts_with('t'))
        .element("supportedVirtualizationTypes", |xml| {
            xml.text("item", "hvm");
        })
        .element("processorInfo", |xml| {
            xml.element("supportedArchitectures", |xml| {
                xml.text("item", kind.architecture.name());
            });
        })
        .element("vCpuInfo", |xml| {
            xml.text("defaultVCpus", kind.cpus);
        })
        .element("memoryInfo", |xml| {
            xml.text("sizeInMiB", kind.memory_mib);
        });
}

pub(super) fn describe_offerings(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    authorize_list(call, "DescribeInstanceTypeOfferings")?;
    let kind_of_place = params.get("LocationType").unwrap_or("region");
    let places = match kind_of_place {
        "region" => vec![call.region.clone()],
        "availability-zone" => network::zones(&call.region),
        other => return Err(super::invalid("locationType", other, "")),
    };
    let filters = filter::read(params);
    let mut shown = Vec::new();
    for kind in all() {
        for place in &places {
            let passes = filter::passes(&filters, &BTreeMap::new(), |name| {
                Some(vec![match name {
                    "instance-type" => kind.name.clone(),
                    "location" => place.clone(),
                    _ => return None,
                }])
            })?;
            if passes {
                shown.push((kind.name.clone(), place.clone()));
            }
        }
    }
    let (shown, token) = page(params, shown, 5..=1000)?;
    let mut xml = Xml::default();
    xml.list(
        "instanceTypeOfferingSet",
        "item",
        shown,
        |xml, (kind, place)| {
            xml.text("instanceType", kind)
                .text("locationType", kind_of_place)
                .text("location", place);
        },
    )
    .optional("nextToken", token);
    Ok(xml)
}
