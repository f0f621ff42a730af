//! What EC2 refuses, ends or stops.

use super::Advice::{Do, Run};
use super::Cause;
use crate::diagnosis::{INSTANCE, LAUNCH};

pub(super) const CAUSES: &[Cause] = &[
    Cause {
        name: "capacity",
        at: &[LAUNCH, INSTANCE],
        shows: &[
            r"\(InsufficientInstanceCapacity\)",
            r"Server\.InsufficientInstanceCapacity",
        ],
        general: false,
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
    },
    Cause {
        name: "quota",
        at: &[LAUNCH],
        shows: &[r"\((?:VcpuLimitExceeded|InstanceLimitExceeded)\)"],
        general: false,
        what: "the account's quota for running instances of this kind is used up",
        remedy: &[
            Do("See what runs, and end what nobody needs:"),
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
    },
    Cause {
        name: "volume-quota",
        at: &[LAUNCH, INSTANCE],
        shows: &[r"\(VolumeLimitExceeded\)", r"Client\.VolumeLimitExceeded"],
        general: false,
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
    },
    Cause {
        name: "subnet-full",
        at: &[LAUNCH],
        shows: &[r"\(InsufficientFreeAddressesInSubnet\)"],
        general: false,
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
    },
    Cause {
        name: "instance-profile-unknown",
        at: &[LAUNCH],
        shows: &[
            r"\(InvalidParameterValue\).*(?:Invalid IAM Instance Profile|has no associated IAM Roles)",
        ],
        general: false,
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
    },
    Cause {
        name: "terminated-by-user",
        at: &[INSTANCE],
        shows: &[r"is (?:terminated|shutting-down): Client\.UserInitiatedShutdown"],
        general: false,
        what: "somebody ended the instance",
        remedy: &[
            Do("Find out who (CloudTrail keeps it for 90 days), then launch another:"),
            Run(
                "aws cloudtrail lookup-events --region {region} --lookup-attributes AttributeKey=ResourceName,AttributeValue={id} --query 'Events[].[EventTime,EventName,Username]' --output table",
            ),
            Run("m8trx onboard {customer}"),
        ],
    },
    Cause {
        name: "instance-stopped",
        at: &[INSTANCE],
        shows: &[
            r"is stop(?:ped|ping): (?:Client\.UserInitiatedShutdown|Client\.UserInitiatedHibernate|Server\.ScheduledStop)",
        ],
        general: false,
        what: "the instance was stopped",
        remedy: &[Do("This starts it again:"), Run("m8trx onboard {customer}")],
    },
    Cause {
        name: "host-shut-down",
        at: &[INSTANCE],
        shows: &[r"is \S+ Client\.InstanceInitiatedShutdown"],
        general: false,
        what: "the host shut itself down: something on it ran `shutdown` or `poweroff`",
        remedy: &[
            Do("Its console says what ran last:"),
            Run("aws ec2 get-console-output --output text --instance-id {id} --region {region}"),
            Run("m8trx onboard {customer}"),
        ],
    },
    Cause {
        name: "instance-unknown",
        at: &[INSTANCE],
        shows: &[r"is unknown to EC2"],
        general: false,
        what: "EC2 does not know the instance any more: it ended more than an hour ago, or is in another region or account",
        remedy: &[Do("Launch another:"), Run("m8trx onboard {customer}")],
    },
    Cause {
        name: "instance-terminated",
        at: &[INSTANCE],
        shows: &[r"is (?:terminated|shutting-down|stopped|stopping): (?<reason>.+)$"],
        general: true,
        what: "EC2 itself ended the instance ({reason})",
        remedy: &[
            Do(
                "`Client.InternalError` mostly means that the KMS key of its encrypted volume cannot be used: it must exist, be enabled, and allow whoever launches. This is the key of new volumes, unless the launch names another:",
            ),
            Run("aws ec2 get-ebs-default-kms-key-id --region {region}"),
            Do("`Server.…` is AWS's own: launch another."),
            Run("m8trx onboard {customer}"),
        ],
    },
];
