//! The parameters in SSM, and the role that may read them.

use super::Advice::{Do, Run};
use super::Cause;

const AT: &[&str] = &["tailscale", "parameters"];

pub(super) const CAUSES: &[Cause] = &[
    Cause {
        name: "kms-denied",
        at: AT,
        shows: &[
            r"\(AccessDeniedException\).*kms:Decrypt",
            r"ciphertext refers to a customer master key that does not exist",
        ],
        general: false,
        what: "the host may read the parameter, but not decrypt it: its role lacks kms:Decrypt on the key it is encrypted with",
        remedy: &[
            Do(
                "Store the parameters under the account's default key (no --key-id), or allow the role to use the key. Which key it is:",
            ),
            Run(
                "aws ssm describe-parameters --region {region} --parameter-filters Key=Name,Values={brain_key},{auth_key} --query 'Parameters[].[Name,KeyId]' --output table",
            ),
        ],
    },
    Cause {
        name: "kms-key-unusable",
        at: AT,
        shows: &[r"\(InvalidKeyId\)", r"\(KMSInvalidStateException\)"],
        general: false,
        what: "the key that the parameter is encrypted with is disabled or deleted",
        remedy: &[
            Do(
                "Enable the key, or delete the parameters and let them be stored again under the account's default key:",
            ),
            Run(
                "aws ssm describe-parameters --region {region} --parameter-filters Key=Name,Values={brain_key},{auth_key} --query 'Parameters[].[Name,KeyId]' --output table",
            ),
            Run("aws ssm delete-parameters --region {region} --names {brain_key} {auth_key}"),
        ],
    },
    Cause {
        name: "iam-denied",
        at: AT,
        shows: &[
            r"(?<parameter>/m8trx/[A-Za-z0-9_./-]+) not read(?:: |, again).*\(AccessDenied(?:Exception)?\).*perform: ssm:GetParameter",
        ],
        general: false,
        what: "the host's role may not read {parameter} (ssm:GetParameter)",
        remedy: &[
            Do(
                "`m8trx onboard` writes the role's policy again when it is not as it should be. See whether it is; if so, a permissions boundary or an organisation's policy denies it:",
            ),
            Run("aws iam get-role-policy --role-name {role} --policy-name m8trx-parameters"),
            Run(
                "aws iam simulate-principal-policy --policy-source-arn \"$(aws iam get-role --role-name {role} --query Role.Arn --output text)\" --action-names ssm:GetParameter --resource-arns \"$(aws ssm get-parameter --region {region} --name {parameter} --query Parameter.ARN --output text)\" --query 'EvaluationResults[].EvalDecision'",
            ),
        ],
    },
    Cause {
        name: "parameter-missing",
        at: AT,
        shows: &[r"(?<parameter>/m8trx/[A-Za-z0-9_./-]+) not read: .*\(ParameterNotFound\)"],
        general: false,
        what: "the parameter {parameter} does not exist in this region",
        remedy: &[
            Do("`m8trx onboard` stores what is missing before it launches. What this region has:"),
            Run(
                "aws ssm describe-parameters --region {region} --parameter-filters Key=Name,Option=BeginsWith,Values=/m8trx/ --query 'Parameters[].[Name,Type,LastModifiedDate]' --output table",
            ),
        ],
    },
    Cause {
        name: "parameter-malformed",
        at: AT,
        shows: &[
            r"the value of (?<parameter>/m8trx/(?:brain-url|[a-z0-9_]+/brain-key)) is not (?<form>.*)$",
        ],
        general: false,
        what: "the value of {parameter} is not {form}",
        remedy: &[
            Do(
                "Mostly a line break at its end. Put it again; a secret is asked for without being shown:",
            ),
            Run("m8trx params put {parameter} --region {region}"),
        ],
    },
    Cause {
        name: "ssm-throttled",
        at: AT,
        shows: &[r"\((?:ThrottlingException|Throttling|TooManyRequestsException)\)"],
        general: false,
        what: "AWS limits how often this account reads parameters, and the host did not get through",
        remedy: &[
            Do(
                "Launch fewer hosts at a time, and this one again in some minutes; or raise the limit of this region (it costs money):",
            ),
            Run(
                "aws ssm update-service-setting --region {region} --setting-id /ssm/parameter-store/high-throughput-enabled --setting-value true",
            ),
        ],
    },
    Cause {
        name: "ssm-unreachable",
        at: AT,
        shows: &[
            r"Could not connect to the endpoint URL",
            r"(?:Connect|Read) timeout on endpoint URL",
            r"/m8trx/\S+ not read: *$",
            r"/m8trx/\S+ not read, again in \d+ s: no answer",
        ],
        general: false,
        what: "the host gets no connection to SSM (ssm.{region}.amazonaws.com)",
        remedy: &[
            Do(
                "Where the VPC has an endpoint for SSM, its security group must let the host in on TCP 443, and its policy must allow ssm:GetParameter; without one, the host needs a way out:",
            ),
            Run(
                "aws ec2 describe-vpc-endpoints --region {region} --filters Name=service-name,Values=com.amazonaws.{region}.ssm --query 'VpcEndpoints[].[VpcEndpointId,State,PrivateDnsEnabled,Groups[].GroupId]'",
            ),
        ],
    },
    Cause {
        name: "no-instance-profile",
        at: AT,
        shows: &[r"Unable to locate credentials"],
        general: false,
        what: "the host has no credentials: it was launched without an instance profile, or its role was deleted",
        remedy: &[
            Do(
                "`m8trx onboard` makes profile and role before it launches. To keep this host, give it the profile, and run user-data again on it:",
            ),
            Run(
                "aws ec2 associate-iam-instance-profile --region {region} --instance-id {id} --iam-instance-profile Name={role}",
            ),
        ],
    },
    Cause {
        name: "credentials-invalid",
        at: AT,
        shows: &[
            r"\((?:UnrecognizedClientException|InvalidClientTokenId|ExpiredTokenException|ExpiredToken)\)",
        ],
        general: false,
        what: "AWS does not take the host's credentials: its role was deleted or made again after the launch",
        remedy: &[
            Do(
                "A role of the same name is another role; give the host its profile anew, or launch another:",
            ),
            Run(
                "aws ec2 describe-iam-instance-profile-associations --region {region} --filters Name=instance-id,Values={id} --query 'IamInstanceProfileAssociations[].[AssociationId,State]' --output text",
            ),
            Run(
                "aws ec2 replace-iam-instance-profile-association --region {region} --iam-instance-profile Name={role} --association-id ASSOCIATION_ID",
            ),
        ],
    },
];
