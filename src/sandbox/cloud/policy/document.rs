//! Policy documents: reading and checking them.

use serde_json::{Map, Value};

/// A policy document that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    pub(super) statements: Vec<Statement>,
}

/// What a document is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Attached to an identity: has resources and no principal.
    Identity,
    /// Says who may assume a role: has principals and no resource.
    Trust,
}

/// Why a text is not a policy document, in IAM's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub String);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub effect: Effect,
    pub actions: Names,
    pub resources: Names,
    pub conditions: Vec<Condition>,
    /// Services of `Principal` (`*` is everyone); empty in identity policies.
    pub service_principals: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

/// `Action` or `NotAction`, `Resource` or `NotResource`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Names {
    Only(Vec<String>),
    AllBut(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub operator: String,
    pub key: String,
    pub values: Vec<String>,
}

/// Every operator IAM knows, without `IfExists` and the set prefixes.
const OPERATORS: [&str; 26] = [
    "StringEquals",
    "StringNotEquals",
    "StringEqualsIgnoreCase",
    "StringNotEqualsIgnoreCase",
    "StringLike",
    "StringNotLike",
    "NumericEquals",
    "NumericNotEquals",
    "NumericLessThan",
    "NumericLessThanEquals",
    "NumericGreaterThan",
    "NumericGreaterThanEquals",
    "DateEquals",
    "DateNotEquals",
    "DateLessThan",
    "DateLessThanEquals",
    "DateGreaterThan",
    "DateGreaterThanEquals",
    "Bool",
    "BinaryEquals",
    "IpAddress",
    "NotIpAddress",
    "ArnEquals",
    "ArnLike",
    "ArnNotEquals",
    "ArnNotLike",
];

fn syntax() -> Malformed {
    Malformed("Syntax errors in policy.".to_owned())
}

fn malformed(text: impl Into<String>) -> Malformed {
    Malformed(text.into())
}

impl Document {
    /// Reads and checks a document.
    pub fn parse(text: &str, kind: Kind) -> Result<Self, Malformed> {
        let value: Value = serde_json::from_str(text)
            .map_err(|_| malformed("This policy contains invalid Json"))?;
        let object = value.as_object().ok_or_else(syntax)?;
        if object
            .keys()
            .any(|key| !matches!(key.as_str(), "Version" | "Id" | "Statement"))
        {
            return Err(syntax());
        }
        match object.get("Version").map(Value::as_str) {
            None | Some(Some("2008-10-17" | "2012-10-17")) => {}
            Some(_) => {
                return Err(malformed(
                    "The policy must contain a valid version string, 2012-10-17 or 2008-10-17.",
                ));
            }
        }
        let statements = match object.get("Statement") {
            Some(Value::Array(statements)) if !statements.is_empty() => statements.as_slice(),
            Some(statement @ Value::Object(_)) => std::slice::from_ref(statement),
            _ => return Err(syntax()),
        };
        let statements = statements
            .iter()
            .map(|statement| Statement::parse(statement.as_object().ok_or_else(syntax)?, kind))
            .collect::<Result<_, _>>()?;
        Ok(Self { statements })
    }

    /// A document that allows everything.
    pub fn allow_all() -> Self {
        Self {
            statements: vec![Statement {
                effect: Effect::Allow,
                actions: Names::Only(vec!["*".to_owned()]),
                resources: Names::Only(vec!["*".to_owned()]),
                conditions: Vec::new(),
                service_principals: Vec::new(),
            }],
        }
    }
}

impl Statement {
    fn parse(object: &Map<String, Value>, kind: Kind) -> Result<Self, Malformed> {
        const KEYS: [&str; 9] = [
            "Sid",
            "Effect",
            "Principal",
            "NotPrincipal",
            "Action",
            "NotAction",
            "Resource",
            "NotResource",
            "Condition",
        ];
        if object.keys().any(|key| !KEYS.contains(&key.as_str())) {
            return Err(syntax());
        }
        if let Some(sid) = object.get("Sid") {
            let sid = sid.as_str().ok_or_else(syntax)?;
            if !sid.chars().all(|c| c.is_ascii_alphanumeric()) {
                return Err(malformed(
                    "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*",
                ));
            }
        }
        let effect = match object.get("Effect").and_then(Value::as_str) {
            Some("Allow") => Effect::Allow,
            Some("Deny") => Effect::Deny,
            _ => return Err(syntax()),
        };
        let actions = names(object, "Action", "NotAction")?
            .ok_or_else(|| malformed("Policy statement must contain actions."))?;
        if !actions.all(is_action) {
            return Err(malformed(
                "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
            ));
        }
        let resources = names(object, "Resource", "NotResource")?;
        let principal = object
            .get("Principal")
            .or_else(|| object.get("NotPrincipal"));
        let (resources, service_principals) = match kind {
            Kind::Identity => {
                if principal.is_some() {
                    return Err(malformed("Policy document should not specify a principal."));
                }
                let resources = resources
                    .ok_or_else(|| malformed("Policy statement must contain resources."))?;
                if let Some(bad) = resources.find_not(is_resource) {
                    return Err(malformed(format!(
                        "Resource {bad} must be in ARN format or \"*\"."
                    )));
                }
                (resources, Vec::new())
            }
            Kind::Trust => {
                if resources.is_some() {
                    return Err(malformed("Has prohibited field Resource"));
                }
                let principal = principal.ok_or_else(|| {
                    malformed("Missing required field Principal cannot be empty!")
                })?;
                let assumes = |action: &str| action.starts_with("sts:") || action == "*";
                if !actions.all(assumes) {
                    return Err(malformed(
                        "AssumeRole policy may only specify STS AssumeRole actions.",
                    ));
                }
                (Names::Only(Vec::new()), service_principals(principal)?)
            }
        };
        Ok(Self {
            effect,
            actions,
            resources,
            conditions: conditions(object.get("Condition"))?,
            service_principals,
        })
    }
}

impl Names {
    fn patterns(&self) -> &[String] {
        let (Self::Only(patterns) | Self::AllBut(patterns)) = self;
        patterns
    }

    fn all(&self, test: impl Fn(&str) -> bool) -> bool {
        self.find_not(test).is_none()
    }

    fn find_not(&self, test: impl Fn(&str) -> bool) -> Option<&String> {
        self.patterns().iter().find(|pattern| !test(pattern))
    }
}

fn names(
    object: &Map<String, Value>,
    only: &str,
    all_but: &str,
) -> Result<Option<Names>, Malformed> {
    match (object.get(only), object.get(all_but)) {
        (Some(_), Some(_)) => Err(syntax()),
        (Some(value), None) => Ok(Some(Names::Only(strings(value)?))),
        (None, Some(value)) => Ok(Some(Names::AllBut(strings(value)?))),
        (None, None) => Ok(None),
    }
}

/// One string, or a list of at least one.
fn strings(value: &Value) -> Result<Vec<String>, Malformed> {
    match value {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(values) if !values.is_empty() => values
            .iter()
            .map(|value| value.as_str().map(str::to_owned).ok_or_else(syntax))
            .collect(),
        _ => Err(syntax()),
    }
}

fn is_action(action: &str) -> bool {
    action == "*"
        || action.split_once(':').is_some_and(|(vendor, name)| {
            !vendor.is_empty()
                && vendor
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !name.is_empty()
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '*' | '?'))
        })
}

fn is_resource(resource: &str) -> bool {
    resource == "*" || (resource.starts_with("arn:") && resource.matches(':').count() >= 5)
}

fn service_principals(principal: &Value) -> Result<Vec<String>, Malformed> {
    if principal == "*" {
        return Ok(vec!["*".to_owned()]);
    }
    let object = principal.as_object().filter(|object| !object.is_empty());
    let object = object.ok_or_else(|| malformed("Invalid principal in policy."))?;
    let mut services = Vec::new();
    for (kind, value) in object {
        match kind.as_str() {
            "Service" => services.extend(strings(value)?),
            "AWS" | "Federated" | "CanonicalUser" => {
                strings(value)?;
            }
            _ => return Err(malformed("Invalid principal in policy.")),
        }
    }
    if let Some(bad) = services.iter().find(|name| {
        *name != "*" && !(name.ends_with(".amazonaws.com") || name.ends_with(".amazonaws.com.cn"))
    }) {
        return Err(malformed(format!(
            "Invalid principal in policy: \"SERVICE\":\"{bad}\""
        )));
    }
    Ok(services)
}

fn conditions(value: Option<&Value>) -> Result<Vec<Condition>, Malformed> {
    let Some(value) = value else {
        return Ok(Vec::new());
    };
    let mut conditions = Vec::new();
    for (operator, keys) in value.as_object().ok_or_else(syntax)? {
        let bare = operator.strip_suffix("IfExists").unwrap_or(operator);
        let bare = bare
            .strip_prefix("ForAllValues:")
            .or_else(|| bare.strip_prefix("ForAnyValue:"))
            .unwrap_or(bare);
        if operator != "Null" && !OPERATORS.contains(&bare) {
            return Err(malformed(format!("Invalid Condition type : {operator}.")));
        }
        for (key, values) in keys.as_object().ok_or_else(syntax)? {
            if !key.contains(':') {
                return Err(malformed(
                    "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
                ));
            }
            conditions.push(Condition {
                operator: operator.clone(),
                key: key.clone(),
                values: condition_values(values)?,
            });
        }
    }
    Ok(conditions)
}

/// As [`strings`], but `true` and numbers stand for their text.
fn condition_values(value: &Value) -> Result<Vec<String>, Malformed> {
    match value {
        Value::Array(values) => values.iter().map(scalar).collect(),
        value => Ok(vec![scalar(value)?]),
    }
}

fn scalar(value: &Value) -> Result<String, Malformed> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        _ => Err(syntax()),
    }
}
