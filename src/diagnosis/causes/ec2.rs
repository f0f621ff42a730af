//! What EC2 refuses, ends or stops.

use super::Advice::{Do, Run};
use super::Cause;
use crate::diagnosis::{INSTANCE, LAUNCH};

pub(super) const CAUSES: &[Cause] = &[
    Cause {
        name: "capacity",
        at: &[LAUNCH, INSTANCE],
        shows: &[
            r"\bInsufficientInstanceCapacity\b",
            r"\bInsufficientHostCapacity\b",
            r"do not have sufficient \S+ capacity",
        ],
        what: "AWS has no capacity for this instance type in this availability zone now",
        remedy: &[
            Do("Try again in some minutes, or take another instance type:"),
            Run("m8trx onboard {customer} --instance-type t3a.small"),
            Do("Or a subnet in another availability zone, one of these:"),
            Run(
                "aws ec2 describe-subnets --region {region} --query 'Subnets[].[SubnetId,AvailabilityZone,VpcId]' --output table",
            ),
            Run("m8trx onboard {customer} --subnet SUBNET_ID"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "quota",
        at: &[LAUNCH],
        shows: &[r"\b(?:VcpuLimitExceeded|InstanceLimitExceeded|MaxSpotInstanceCountExceeded)\b"],
        what: "the account's quota for running instances of this kind is used up",
        remedy: &[
            Do("See what runs, and terminate what nobody needs:"),
            Run(
                "aws ec2 describe-instances --region {region} --filters Name=instance-state-name,Values=running --query 'Reservations[].Instances[].[InstanceId,InstanceType,LaunchTime]' --output table",
            ),
            Do("Or ask for more (the vCPUs of standard instances; L-1216C47A):"),
            Run(
                "aws service-quotas get-service-quota --region {region} --service-code ec2 --quota-code L-1216C47A --query Quota.Value",
            ),
            Run(
                "aws service-quotas request-service-quota-increase --region {region} --service-code ec2 --quota-code L-1216C47A --desired-value VCPUS",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "volume-quota",
        at: &[LAUNCH, INSTANCE],
        shows: &[r"\b(?:Volume|Snapshot|MaxIOPS)LimitExceeded\b"],
        what: "the account's quota for volumes is used up",
        remedy: &[
            Do(
                "Delete volumes that nothing uses, or ask for more (TiB of gp3 volumes; L-7A658B76):",
            ),
            Run(
                "aws ec2 describe-volumes --region {region} --filters Name=status,Values=available --query 'Volumes[].[VolumeId,Size,CreateTime]' --output table",
            ),
            Run(
                "aws service-quotas request-service-quota-increase --region {region} --service-code ebs --quota-code L-7A658B76 --desired-value TIB",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "subnet-full",
        at: &[LAUNCH],
        shows: &[r"\bInsufficientFreeAddressesInSubnet\b"],
        what: "the subnet has no free address left",
        remedy: &[
            Do(
                "Take another subnet, one of these (the last column is how many addresses are free):",
            ),
            Run(
                "aws ec2 describe-subnets --region {region} --query 'Subnets[].[SubnetId,AvailabilityZone,AvailableIpAddressCount]' --output table",
            ),
            Run("m8trx onboard {customer} --subnet SUBNET_ID"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "instance-profile-unknown",
        at: &[LAUNCH],
        shows: &[
            r"InvalidParameterValue.*(?:Invalid IAM Instance Profile|has no associated IAM Roles)",
        ],
        what: "EC2 still does not know the instance profile, though IAM has it",
        remedy: &[
            Do(
                "IAM tells EC2 within seconds, in rare cases within minutes: run the same command again. If it stays so, look whether the profile has its role:",
            ),
            Run(
                "aws iam get-instance-profile --instance-profile-name {role} --query 'InstanceProfile.Roles[].RoleName'",
            ),
            Run("m8trx onboard {customer}"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "launch-denied",
        variant: "pass-role",
        at: &[LAUNCH],
        shows: &[r"not authorized to perform: iam:PassRole"],
        what: "whoever launches may not give the host its role (iam:PassRole)",
        remedy: &[
            Do(
                "The operator's own policy must allow iam:PassRole on the role {role}; this prints what `m8trx` needs, for whoever keeps it:",
            ),
            Run("m8trx iam operator-policy"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "launch-denied",
        variant: "encoded",
        at: &[LAUNCH],
        shows: &[
            r"UnauthorizedOperation.*Encoded authorization failure message: (?<message>\S+)",
            r"not authorized to perform this operation.*Encoded authorization failure message: (?<message>\S+)",
        ],
        what: "AWS refused the launch: whoever launches lacks a permission, so no host was started",
        remedy: &[
            Do("What was denied, and by which policy (needs sts:DecodeAuthorizationMessage):"),
            Run(
                "aws sts decode-authorization-message --encoded-message {message} --query DecodedMessage --output text",
            ),
            Do(
                "What `m8trx` needs, for whoever keeps the operator's policy (an explicit deny may be the organisation's):",
            ),
            Run("m8trx iam operator-policy"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "launch-denied",
        at: &[LAUNCH],
        shows: &[
            r"\bUnauthorizedOperation\b",
            r"not authorized to perform: ec2:(?<action>\w+)",
        ],
        what: "AWS refused the launch: whoever launches lacks a permission, so no host was started",
        remedy: &[
            Do(
                "The message says which policy denied it: an identity-based one is the operator's own, a service control policy the organisation's, a boundary that of the operator's user or role. What `m8trx` needs:",
            ),
            Run("m8trx iam operator-policy"),
            Run("aws sts get-caller-identity"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "instance-type-unsupported",
        at: &[LAUNCH],
        shows: &[
            r"instance type \((?<kind>[a-z0-9.-]+)\) is not supported in your requested Availability Zone",
            r"(?<kind>[Tt]he requested configuration) is currently not supported",
            r"The architecture '(?<kind>[^']+)' of the specified",
        ],
        what: "EC2 does not offer this in this availability zone, or not for this image: {kind}",
        remedy: &[
            Do("Take a subnet in another zone, or another type; where the type exists:"),
            Run(
                "aws ec2 describe-instance-type-offerings --location-type availability-zone --region {region} --filters Name=instance-type,Values=t3.small --query 'InstanceTypeOfferings[].Location' --output text",
            ),
            Run("m8trx onboard {customer} --subnet SUBNET_ID"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "launch-refused",
        at: &[LAUNCH],
        shows: &[
            r"An error occurred \((?<code>[A-Za-z.]+)\) when calling the RunInstances operation[^:]*: (?<message>.*)$",
            r"RunInstances.*api error (?<code>[A-Za-z.]+): (?<message>.*)$",
            r"Error launching source instance: (?<code>[A-Za-z.]+): (?<message>.*)$",
            r"(?<message>.*)\(Service: (?:AmazonEC2|Ec2|EC2)\S*; Status Code: \d+; Error Code: (?<code>[A-Za-z.]+);",
        ],
        general: true,
        what: "EC2 refused the launch: {code}: {message}",
        remedy: &[
            Do(
                "No host was started. What the code means: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html. When that is fixed:",
            ),
            Run("m8trx onboard {customer}"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "terminated-by-user",
        at: &[INSTANCE],
        shows: &[r"is (?:terminated|shutting-down): Client\.UserInitiatedShutdown"],
        what: "somebody terminated the instance",
        remedy: &[
            Do("Find out who (CloudTrail keeps it for 90 days), then launch another:"),
            Run(
                "aws cloudtrail lookup-events --region {region} --lookup-attributes AttributeKey=ResourceName,AttributeValue={id} --query 'Events[].[EventTime,EventName,Username]' --output table",
            ),
            Run("m8trx onboard {customer}"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "instance-stopped",
        at: &[INSTANCE],
        shows: &[
            r"is stop(?:ped|ping): (?:Client\.UserInitiatedShutdown|Client\.UserInitiatedHibernate|Server\.ScheduledStop)",
        ],
        what: "the instance was stopped",
        remedy: &[Do("This starts it again:"), Run("m8trx onboard {customer}")],
        ..Cause::NEW
    },
    Cause {
        name: "host-shut-down",
        at: &[INSTANCE],
        shows: &[r"is \S+ Client\.InstanceInitiatedShutdown"],
        what: "the host shut itself down: something on it ran `shutdown` or `poweroff`",
        remedy: &[
            Do("Its console says what ran last:"),
            Run("aws ec2 get-console-output --output text --instance-id {id} --region {region}"),
            Run("m8trx onboard {customer}"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "instance-unknown",
        at: &[INSTANCE],
        shows: &[r"is unknown to EC2"],
        what: "EC2 does not know the instance any more: it ended more than an hour ago, or is in another region or account",
        remedy: &[Do("Launch another:"), Run("m8trx onboard {customer}")],
        ..Cause::NEW
    },
    Cause {
        name: "instance-terminated",
        variant: "internal-error",
        at: &[INSTANCE],
        shows: &[r"\bClient\.InternalError\b"],
        what: "EC2 could not start the instance (Client.InternalError: mostly, the KMS key of its encrypted volume cannot be used)",
        remedy: &[
            Do(
                "The key must exist, be enabled, and its policy must allow whoever launches (kms:CreateGrant, kms:Decrypt, kms:DescribeKey, kms:GenerateDataKeyWithoutPlaintext, kms:ReEncrypt*). This is the key of new volumes, unless the launch or the image's snapshot names another:",
            ),
            Run("aws ec2 get-ebs-default-kms-key-id --region {region}"),
            Run("m8trx onboard {customer}"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "instance-terminated",
        at: &[INSTANCE],
        shows: &[
            r"^(?:i-[0-9a-f]+|the instance) is (?:terminated|shutting-down|stopped|stopping): (?<reason>.+)$",
            r#"[Ss]tate ?(?:[Tt]ransition)? ?[Rr]eason[^:]*: "?(?<reason>(?:Client|Server)\..+?)"?,?$"#,
            r#""Message": "(?<reason>(?:Client|Server)\.[^"]+)""#,
        ],
        general: true,
        what: "EC2 itself ended the instance ({reason})",
        remedy: &[
            Do("`Server.…` is AWS's own (its hardware, or capacity taken back): launch another."),
            Run("m8trx onboard {customer}"),
        ],
        ..Cause::NEW
    },
];
