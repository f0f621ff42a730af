//! Every call to AWS that the adapters beside this file make, what permission it needs, and which command makes it. The
//! policy of whoever runs `m8trx` is built from it.
//!
//! A test runs every command in the sandbox and compares what it called with this table: a call that is missing here, or
//! one that is here and never made, fails it. A new command is a row of [`COMMANDS`]; a new call is a constant.
//!
//! Source of actions and resources: "Actions, resources, and condition keys for AWS services" (Service Authorization
//! Reference) for SSM, IAM, EC2 and STS.

use std::collections::BTreeSet;

/// One call, as CloudTrail names it, and the permissions AWS asks for when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation {
    /// `ssm`, `iam`, `sts` or `ec2`.
    pub service: &'static str,
    /// `GetParameter`, for one.
    pub name: &'static str,
    /// What the caller must be allowed to do; empty for what everybody may.
    pub grants: &'static [Grant],
}

/// A permission: an action, and on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// `ssm:GetParameter`, for one.
    pub action: &'static str,
    /// The narrowest resources that suffice.
    pub on: Scope,
}

/// What actions are allowed on; one statement of the policy each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything: AWS does not scope the action by resource.
    Lists,
    /// This project's parameters.
    Parameters,
    /// The public parameters that name Ubuntu's images.
    ImageParameters,
    /// The roles of customer hosts.
    Roles,
    /// The same, handed to EC2 and to no other service.
    RolesForEc2,
    /// The instance profiles of customer hosts.
    InstanceProfiles,
    /// Instances that carry a customer's tag.
    Hosts,
    /// Instances and volumes that are tagged for a customer as they are made.
    NewHosts,
    /// What a launch uses besides.
    LaunchInputs,
    /// Security groups that carry a customer's tag.
    Groups,
    /// Security groups that are tagged for a customer as they are made.
    NewGroups,
    /// The VPC a security group is made in.
    Networks,
    /// Tags given in the call that makes something, and at no other time.
    TagsAtCreation,
}

const fn call(service: &'static str, name: &'static str, grants: &'static [Grant]) -> Operation {
    Operation {
        service,
        name,
        grants,
    }
}

const fn on(on: Scope, action: &'static str) -> Grant {
    Grant { action, on }
}

use Scope::{
    Groups, Hosts, ImageParameters, InstanceProfiles, LaunchInputs, Lists, Networks, NewGroups,
    NewHosts, Parameters, Roles, RolesForEc2, TagsAtCreation,
};

// Tables read best one row a line.
#[rustfmt::skip]
mod calls {
    use super::*;

    pub const GET_CALLER_IDENTITY: Operation = call("sts", "GetCallerIdentity", &[]);

    pub const GET_PARAMETER: Operation = call("ssm", "GetParameter", &[on(Parameters, "ssm:GetParameter")]);
    pub const GET_IMAGE_PARAMETER: Operation = call("ssm", "GetParameter", &[on(ImageParameters, "ssm:GetParameter")]);
    // A parameter is created with its tags.
    pub const PUT_PARAMETER: Operation = call("ssm", "PutParameter", &[on(Parameters, "ssm:PutParameter"), on(Parameters, "ssm:AddTagsToResource")]);
    // The brain's URL has none.
    pub const PUT_UNTAGGED_PARAMETER: Operation = call("ssm", "PutParameter", &[on(Parameters, "ssm:PutParameter")]);
    pub const GET_PARAMETERS: Operation = call("ssm", "GetParameters", &[on(Parameters, "ssm:GetParameters")]);
    pub const DELETE_PARAMETER: Operation = call("ssm", "DeleteParameter", &[on(Parameters, "ssm:DeleteParameter")]);
    pub const DESCRIBE_PARAMETERS: Operation = call("ssm", "DescribeParameters", &[on(Lists, "ssm:DescribeParameters")]);
    pub const ADD_TAGS_TO_RESOURCE: Operation = call("ssm", "AddTagsToResource", &[on(Parameters, "ssm:AddTagsToResource")]);
    pub const LIST_TAGS_FOR_RESOURCE: Operation = call("ssm", "ListTagsForResource", &[on(Parameters, "ssm:ListTagsForResource")]);
    pub const REMOVE_TAGS_FROM_RESOURCE: Operation = call("ssm", "RemoveTagsFromResource", &[on(Parameters, "ssm:RemoveTagsFromResource")]);

    pub const GET_ROLE: Operation = call("iam", "GetRole", &[on(Roles, "iam:GetRole")]);
    pub const GET_ACCOUNT_AUTHORIZATION_DETAILS: Operation = call("iam", "GetAccountAuthorizationDetails", &[on(Lists, "iam:GetAccountAuthorizationDetails")]);
    pub const LIST_ROLE_POLICIES: Operation = call("iam", "ListRolePolicies", &[on(Roles, "iam:ListRolePolicies")]);
    pub const LIST_ATTACHED_ROLE_POLICIES: Operation = call("iam", "ListAttachedRolePolicies", &[on(Roles, "iam:ListAttachedRolePolicies")]);
    pub const GET_ROLE_POLICY: Operation = call("iam", "GetRolePolicy", &[on(Roles, "iam:GetRolePolicy")]);
    // A role is created with its tags.
    pub const CREATE_ROLE: Operation = call("iam", "CreateRole", &[on(Roles, "iam:CreateRole"), on(Roles, "iam:TagRole")]);
    pub const TAG_ROLE: Operation = call("iam", "TagRole", &[on(Roles, "iam:TagRole")]);
    pub const UPDATE_ASSUME_ROLE_POLICY: Operation = call("iam", "UpdateAssumeRolePolicy", &[on(Roles, "iam:UpdateAssumeRolePolicy")]);
    pub const PUT_ROLE_POLICY: Operation = call("iam", "PutRolePolicy", &[on(Roles, "iam:PutRolePolicy")]);
    pub const DELETE_ROLE_POLICY: Operation = call("iam", "DeleteRolePolicy", &[on(Roles, "iam:DeleteRolePolicy")]);
    pub const DETACH_ROLE_POLICY: Operation = call("iam", "DetachRolePolicy", &[on(Roles, "iam:DetachRolePolicy")]);
    pub const DELETE_ROLE: Operation = call("iam", "DeleteRole", &[on(Roles, "iam:DeleteRole")]);
    pub const GET_INSTANCE_PROFILE: Operation = call("iam", "GetInstanceProfile", &[on(InstanceProfiles, "iam:GetInstanceProfile")]);
    // A profile is created with its tags.
    pub const CREATE_INSTANCE_PROFILE: Operation = call("iam", "CreateInstanceProfile", &[on(InstanceProfiles, "iam:CreateInstanceProfile"), on(InstanceProfiles, "iam:TagInstanceProfile")]);
    pub const TAG_INSTANCE_PROFILE: Operation = call("iam", "TagInstanceProfile", &[on(InstanceProfiles, "iam:TagInstanceProfile")]);
    pub const ADD_ROLE_TO_INSTANCE_PROFILE: Operation = call("iam", "AddRoleToInstanceProfile", &[on(InstanceProfiles, "iam:AddRoleToInstanceProfile"), on(RolesForEc2, "iam:PassRole")]);
    pub const REMOVE_ROLE_FROM_INSTANCE_PROFILE: Operation = call("iam", "RemoveRoleFromInstanceProfile", &[on(InstanceProfiles, "iam:RemoveRoleFromInstanceProfile")]);
    pub const DELETE_INSTANCE_PROFILE: Operation = call("iam", "DeleteInstanceProfile", &[on(InstanceProfiles, "iam:DeleteInstanceProfile")]);

    pub const DESCRIBE_INSTANCES: Operation = call("ec2", "DescribeInstances", &[on(Lists, "ec2:DescribeInstances")]);
    pub const DESCRIBE_INSTANCE_STATUS: Operation = call("ec2", "DescribeInstanceStatus", &[on(Lists, "ec2:DescribeInstanceStatus")]);
    pub const DESCRIBE_INSTANCE_TYPES: Operation = call("ec2", "DescribeInstanceTypes", &[on(Lists, "ec2:DescribeInstanceTypes")]);
    pub const DESCRIBE_IMAGES: Operation = call("ec2", "DescribeImages", &[on(Lists, "ec2:DescribeImages")]);
    pub const DESCRIBE_VPCS: Operation = call("ec2", "DescribeVpcs", &[on(Lists, "ec2:DescribeVpcs")]);
    pub const DESCRIBE_SUBNETS: Operation = call("ec2", "DescribeSubnets", &[on(Lists, "ec2:DescribeSubnets")]);
    pub const DESCRIBE_SECURITY_GROUPS: Operation = call("ec2", "DescribeSecurityGroups", &[on(Lists, "ec2:DescribeSecurityGroups")]);
    pub const CREATE_SECURITY_GROUP: Operation = call("ec2", "CreateSecurityGroup", &[on(NewGroups, "ec2:CreateSecurityGroup"), on(Networks, "ec2:CreateSecurityGroup"), on(TagsAtCreation, "ec2:CreateTags")]);
    pub const REVOKE_SECURITY_GROUP_INGRESS: Operation = call("ec2", "RevokeSecurityGroupIngress", &[on(Groups, "ec2:RevokeSecurityGroupIngress")]);
    pub const DELETE_SECURITY_GROUP: Operation = call("ec2", "DeleteSecurityGroup", &[on(Groups, "ec2:DeleteSecurityGroup")]);
    pub const RUN_INSTANCES: Operation = call("ec2", "RunInstances", &[on(NewHosts, "ec2:RunInstances"), on(LaunchInputs, "ec2:RunInstances"), on(TagsAtCreation, "ec2:CreateTags"), on(RolesForEc2, "iam:PassRole")]);
    // Without a role: none is handed to EC2.
    pub const DRY_RUN_INSTANCES: Operation = call("ec2", "RunInstances", &[on(NewHosts, "ec2:RunInstances"), on(LaunchInputs, "ec2:RunInstances"), on(TagsAtCreation, "ec2:CreateTags")]);
    pub const START_INSTANCES: Operation = call("ec2", "StartInstances", &[on(Hosts, "ec2:StartInstances")]);
    pub const MODIFY_INSTANCE_METADATA_OPTIONS: Operation = call("ec2", "ModifyInstanceMetadataOptions", &[on(Hosts, "ec2:ModifyInstanceMetadataOptions")]);
    pub const GET_CONSOLE_OUTPUT: Operation = call("ec2", "GetConsoleOutput", &[on(Hosts, "ec2:GetConsoleOutput")]);
    pub const TERMINATE_INSTANCES: Operation = call("ec2", "TerminateInstances", &[on(Hosts, "ec2:TerminateInstances")]);
}

use calls::*;

/// What a command calls.
#[derive(Debug, Clone, Copy)]
pub struct CommandCalls {
    /// `onboard`, `params put`, …: the words after `m8trx`.
    pub command: &'static str,
    /// The calls of its parts.
    pub parts: &'static [&'static [Operation]],
}

impl CommandCalls {
    /// The calls, each once.
    pub fn operations(&self) -> BTreeSet<Operation> {
        self.parts
            .iter()
            .flat_map(|part| part.iter().copied())
            .collect()
    }
}

// The calls of parts that several commands share: mostly a step's.
const CONNECT: &[Operation] = &[GET_CALLER_IDENTITY];
const BRAIN: &[Operation] = &[GET_PARAMETER];
const STORE: &[Operation] = &[
    GET_PARAMETER,
    PUT_PARAMETER,
    ADD_TAGS_TO_RESOURCE,
    LIST_TAGS_FOR_RESOURCE,
    REMOVE_TAGS_FROM_RESOURCE,
];
const SEE_ROLE: &[Operation] = &[
    GET_ROLE,
    LIST_ROLE_POLICIES,
    LIST_ATTACHED_ROLE_POLICIES,
    GET_ROLE_POLICY,
    GET_INSTANCE_PROFILE,
];
const MAKE_ROLE: &[Operation] = &[
    CREATE_ROLE,
    TAG_ROLE,
    UPDATE_ASSUME_ROLE_POLICY,
    PUT_ROLE_POLICY,
    DETACH_ROLE_POLICY,
    CREATE_INSTANCE_PROFILE,
    TAG_INSTANCE_PROFILE,
    ADD_ROLE_TO_INSTANCE_PROFILE,
];
const HOST: &[Operation] = &[
    GET_IMAGE_PARAMETER,
    DESCRIBE_IMAGES,
    DESCRIBE_INSTANCE_TYPES,
    DESCRIBE_VPCS,
    DESCRIBE_SUBNETS,
    DESCRIBE_SECURITY_GROUPS,
    CREATE_SECURITY_GROUP,
    REVOKE_SECURITY_GROUP_INGRESS,
    DESCRIBE_INSTANCES,
    RUN_INSTANCES,
    START_INSTANCES,
    MODIFY_INSTANCE_METADATA_OPTIONS,
];
const HEARTBEAT: &[Operation] = &[DESCRIBE_INSTANCES, GET_CONSOLE_OUTPUT];
// Listing everything of a customer, and taking it away.
const REMOVE: &[Operation] = &[
    GET_PARAMETER,
    DESCRIBE_PARAMETERS,
    LIST_TAGS_FOR_RESOURCE,
    DELETE_PARAMETER,
    GET_ROLE,
    LIST_ROLE_POLICIES,
    LIST_ATTACHED_ROLE_POLICIES,
    GET_INSTANCE_PROFILE,
    REMOVE_ROLE_FROM_INSTANCE_PROFILE,
    DELETE_INSTANCE_PROFILE,
    DETACH_ROLE_POLICY,
    DELETE_ROLE_POLICY,
    DELETE_ROLE,
    DESCRIBE_INSTANCES,
    DESCRIBE_SECURITY_GROUPS,
    DELETE_SECURITY_GROUP,
    TERMINATE_INSTANCES,
];
const CUSTOMERS: &[Operation] = &[
    DESCRIBE_PARAMETERS,
    DESCRIBE_INSTANCES,
    GET_ACCOUNT_AUTHORIZATION_DETAILS,
];
// Where a customer lives, before anything of it is changed.
const HOME: &[Operation] = &[GET_ROLE, GET_ROLE_POLICY, GET_INSTANCE_PROFILE];

/// Every command that needs permissions.
pub const COMMANDS: &[CommandCalls] = &[
    CommandCalls {
        command: "onboard",
        parts: &[
            CONNECT,
            BRAIN,
            STORE,
            SEE_ROLE,
            MAKE_ROLE,
            HOST,
            HEARTBEAT,
            // With --terminate-on-failure.
            &[TERMINATE_INSTANCES],
        ],
    },
    // It makes everything anew and mends nothing.
    CommandCalls {
        command: "smoke",
        parts: &[
            CONNECT,
            HOME,
            HEARTBEAT,
            REMOVE,
            &[
                PUT_PARAMETER,
                REMOVE_TAGS_FROM_RESOURCE,
                CREATE_ROLE,
                PUT_ROLE_POLICY,
                CREATE_INSTANCE_PROFILE,
                ADD_ROLE_TO_INSTANCE_PROFILE,
                GET_IMAGE_PARAMETER,
                DESCRIBE_IMAGES,
                DESCRIBE_INSTANCE_TYPES,
                DESCRIBE_VPCS,
                DESCRIBE_SUBNETS,
                CREATE_SECURITY_GROUP,
                RUN_INSTANCES,
            ],
        ],
    },
    CommandCalls {
        command: "offboard",
        parts: &[CONNECT, HOME, REMOVE],
    },
    CommandCalls {
        command: "rotate-tailscale-key",
        parts: &[
            CONNECT,
            HOME,
            &[
                DESCRIBE_PARAMETERS,
                GET_PARAMETER,
                PUT_PARAMETER,
                ADD_TAGS_TO_RESOURCE,
            ],
        ],
    },
    CommandCalls {
        command: "rotate-brain-key",
        parts: &[CONNECT, HOME, BRAIN, STORE, &[DESCRIBE_INSTANCES]],
    },
    CommandCalls {
        command: "status",
        parts: &[
            CONNECT,
            &[
                GET_PARAMETER,
                GET_PARAMETERS,
                DESCRIBE_PARAMETERS,
                DESCRIBE_INSTANCES,
                GET_ACCOUNT_AUTHORIZATION_DETAILS,
            ],
        ],
    },
    CommandCalls {
        command: "events",
        parts: &[CONNECT, BRAIN],
    },
    CommandCalls {
        command: "diagnose",
        parts: &[CONNECT, BRAIN, HEARTBEAT, &[DESCRIBE_INSTANCE_STATUS]],
    },
    CommandCalls {
        command: "params list",
        parts: &[CONNECT, &[DESCRIBE_PARAMETERS, GET_PARAMETER]],
    },
    CommandCalls {
        command: "params show",
        parts: &[CONNECT, &[GET_PARAMETER, LIST_TAGS_FOR_RESOURCE]],
    },
    CommandCalls {
        command: "params put",
        parts: &[CONNECT, HOME, STORE],
    },
    CommandCalls {
        command: "params delete",
        parts: &[
            CONNECT,
            HOME,
            &[
                DESCRIBE_PARAMETERS,
                LIST_TAGS_FOR_RESOURCE,
                DELETE_PARAMETER,
            ],
        ],
    },
    CommandCalls {
        command: "mint-key",
        parts: &[CONNECT, HOME, BRAIN, STORE],
    },
    CommandCalls {
        command: "iam show",
        parts: &[CONNECT, SEE_ROLE],
    },
    CommandCalls {
        command: "iam diff",
        parts: &[CONNECT, SEE_ROLE],
    },
    CommandCalls {
        command: "iam apply",
        parts: &[CONNECT, SEE_ROLE, MAKE_ROLE],
    },
    CommandCalls {
        command: "launch",
        parts: &[CONNECT, BRAIN, SEE_ROLE, HOST],
    },
    CommandCalls {
        command: "wait",
        parts: &[CONNECT, BRAIN, HEARTBEAT],
    },
    CommandCalls {
        command: "brain-url get",
        parts: &[CONNECT, BRAIN, &[DESCRIBE_INSTANCES]],
    },
    CommandCalls {
        command: "brain-url set",
        parts: &[
            CONNECT,
            &[
                GET_PARAMETER,
                PUT_UNTAGGED_PARAMETER,
                LIST_TAGS_FOR_RESOURCE,
                DESCRIBE_INSTANCES,
            ],
        ],
    },
    CommandCalls {
        command: "tailnet devices",
        parts: &[CONNECT, BRAIN, &[DESCRIBE_INSTANCES]],
    },
    CommandCalls {
        command: "tailnet policy",
        // The stored URL says which port of the brain is opened.
        parts: &[CONNECT, CUSTOMERS, BRAIN],
    },
    CommandCalls {
        command: "tailnet apply",
        // The stored URL says which port of the brain is opened.
        parts: &[CONNECT, CUSTOMERS, BRAIN],
    },
    CommandCalls {
        command: "tailnet doctor",
        // The stored URL says which port of the brain is opened.
        parts: &[CONNECT, CUSTOMERS, BRAIN],
    },
    CommandCalls {
        command: "doctor",
        parts: &[
            CONNECT,
            &[
                DESCRIBE_PARAMETERS,
                DESCRIBE_INSTANCES,
                GET_PARAMETER,
                GET_ROLE,
                GET_IMAGE_PARAMETER,
                DESCRIBE_IMAGES,
                DESCRIBE_INSTANCE_TYPES,
                DESCRIBE_VPCS,
                DRY_RUN_INSTANCES,
            ],
        ],
    },
    CommandCalls {
        command: "ssh",
        parts: &[CONNECT, &[DESCRIBE_INSTANCES]],
    },
    CommandCalls {
        command: "logs",
        parts: &[CONNECT, &[DESCRIBE_INSTANCES, GET_CONSOLE_OUTPUT]],
    },
];

/// Every call of every command.
pub fn everything() -> BTreeSet<Operation> {
    COMMANDS.iter().flat_map(CommandCalls::operations).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The adapters, read as text: every call in them names its operation, for its error message.
    const ADAPTERS: [&str; 8] = [
        include_str!("ssm.rs"),
        include_str!("iam.rs"),
        include_str!("ec2.rs"),
        include_str!("ec2_launch.rs"),
        include_str!("ec2_network.rs"),
        include_str!("client.rs"),
        include_str!("fleet.rs"),
        include_str!("customers.rs"),
    ];

    #[test]
    fn every_operation_the_adapters_name_is_in_the_table() {
        let known: BTreeSet<&str> = everything().iter().map(|call| call.name).collect();
        let mut found = BTreeSet::new();
        for adapter in ADAPTERS {
            let (code, _) = adapter.split_once("#[cfg(test)]").unwrap_or((adapter, ""));
            for word in code.split('"').skip(1).step_by(2) {
                let is_operation = word.len() > 5
                    && word.starts_with(|c: char| c.is_ascii_uppercase())
                    && word.chars().all(|c| c.is_ascii_alphanumeric())
                    && (code.contains(&format!("_error(\"{word}\""))
                        || code.contains(&format!("!(self, \"{word}\""))
                        || code.contains(&format!("\", \"{word}\", &")));
                if is_operation {
                    found.insert(word);
                }
            }
        }
        assert!(found.len() > 30, "{found:?}");
        let missing: Vec<_> = found.difference(&known).collect();
        assert!(
            missing.is_empty(),
            "src/aws/operations.rs lacks {missing:?}: add a constant for each in `calls`, and name it in the row of each command that makes it"
        );
    }
}
