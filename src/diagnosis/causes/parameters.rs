//! The parameters in SSM, and the role that may read them. AWS says who denied a call: each has its own owner.

use super::Advice::{Do, Run};
use super::Cause;

const AT: &[&str] = &["tailscale", "parameters"];

const WHICH_KEY: &str = "aws ssm describe-parameters --region {region} --parameter-filters Key=Name,Values={brain_key},{auth_key} --query 'Parameters[].[Name,KeyId]' --output table";
const ENDPOINTS: &str = "aws ec2 describe-vpc-endpoints --region {region} --filters Name=service-name,Values=com.amazonaws.{region}.ssm --query 'VpcEndpoints[].[VpcEndpointId,State,PrivateDnsEnabled,Groups[].GroupId,PolicyDocument]'";
const ASK_SSM: &str = "curl -sv -m 10 -o /dev/null https://ssm.{region}.amazonaws.com/ 2>&1 | grep -E 'Trying|Connected|subject|issuer|error|HTTP'";

pub(super) const CAUSES: &[Cause] = &[
    Cause {
        name: "kms-denied",
        variant: "organisation",
        at: AT,
        shows: &[r"kms:Decrypt.*(?:service control policy|resource control policy)"],
        what: "the host may not decrypt the parameter: a policy of the AWS organisation denies kms:Decrypt",
        remedy: &[Do(
            "Neither the role nor the key can allow it. Whoever keeps the organisation's policies must let this account's roles use kms:Decrypt; the policy's ARN stands in the line above.",
        )],
        ..Cause::NEW
    },
    Cause {
        name: "kms-denied",
        variant: "key-policy",
        at: AT,
        shows: &[
            r"no resource-based polic(?:y|ies) allows? .*kms:Decrypt",
            r"kms:Decrypt.*(?:no resource-based polic|resource-based policy)",
        ],
        beside: &[r"(?<key>arn:aws[a-z-]*:kms:[a-z0-9:-]+/[A-Za-z0-9-]+)"],
        what: "the host may not decrypt the parameter: the policy of its KMS key does not let the host's role use it",
        remedy: &[
            Do(
                "Whoever owns the key adds kms:Decrypt for the role to the key's policy (a key of another account needs it in both). Which key it is:",
            ),
            Run(WHICH_KEY),
            Do(
                "Or store the parameters under the account's default key (no --key-id), which every role with ssm:GetParameter may use.",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "kms-denied",
        at: AT,
        shows: &[
            r"\(AccessDenied(?:Exception)?\).*kms:Decrypt",
            r"ciphertext refers to a customer master key that does not exist",
        ],
        what: "the host may read the parameter, but not decrypt it: its role lacks kms:Decrypt on the key it is encrypted with",
        remedy: &[
            Do(
                "Store the parameters under the account's default key (no --key-id), or allow the role to use the key. Which key it is:",
            ),
            Run(WHICH_KEY),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "kms-key-unusable",
        at: AT,
        shows: &[
            r"\(InvalidKeyId\)",
            r"\(KMSInvalidStateException\)",
            r"\(DisabledException\)",
            r"KMS key.*(?:is disabled|pending deletion)",
        ],
        what: "the key that the parameter is encrypted with is disabled or deleted",
        remedy: &[
            Do(
                "Enable the key, or delete the parameters and let them be stored again under the account's default key:",
            ),
            Run(WHICH_KEY),
            Run("aws ssm delete-parameters --region {region} --names {brain_key} {auth_key}"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "iam-denied",
        variant: "organisation",
        at: AT,
        shows: &[
            r"(?<parameter>/m8trx/[A-Za-z0-9_./-]+) not read.*AccessDenied.*ssm:GetParameter.*(?:service|resource) control policy(?:: (?<policy>arn:\S+))?",
        ],
        what: "a policy of the AWS organisation denies reading {parameter} (ssm:GetParameter); the host's role cannot allow it",
        remedy: &[
            Do(
                "Talk to whoever keeps the organisation's policies (SCP, RCP): this account's roles must be let use ssm:GetParameter in {region}. The policy stands in the line above; only the organisation's management account can read it:",
            ),
            Run(
                "aws organizations list-policies-for-target --filter SERVICE_CONTROL_POLICY --target-id \"$(aws sts get-caller-identity --query Account --output text)\"",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "iam-denied",
        variant: "endpoint",
        at: AT,
        shows: &[
            r"(?<parameter>/m8trx/[A-Za-z0-9_./-]+) not read.*AccessDenied.*ssm:GetParameter.*VPC endpoint policy",
        ],
        what: "the policy of the VPC's endpoint for SSM does not let {parameter} be read through it; the host's role does not matter",
        remedy: &[
            Do(
                "In that endpoint's policy, allow ssm:GetParameter on /m8trx/* (whoever owns the VPC does). Which endpoint, and its policy:",
            ),
            Run(ENDPOINTS),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "iam-denied",
        variant: "boundary",
        at: AT,
        shows: &[
            r"(?<parameter>/m8trx/[A-Za-z0-9_./-]+) not read.*AccessDenied.*ssm:GetParameter.*permissions boundary",
        ],
        what: "a permissions boundary on the host's role denies reading {parameter} (ssm:GetParameter)",
        remedy: &[
            Do(
                "The boundary must allow ssm:GetParameter on /m8trx/*; whoever owns it changes it (the role's own policy cannot). Which one it is:",
            ),
            Run("aws iam get-role --role-name {role} --query Role.PermissionsBoundary"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "iam-denied",
        variant: "session",
        at: AT,
        shows: &[
            r"(?<parameter>/m8trx/[A-Za-z0-9_./-]+) not read.*AccessDenied.*ssm:GetParameter.*session policy",
        ],
        what: "a session policy denies reading {parameter}: the host's credentials are not those of its instance profile alone",
        remedy: &[
            Do(
                "Something on the image hands out narrowed credentials (a credentials file, a role chain). On the host, see who it is:",
            ),
            Run("aws sts get-caller-identity; aws configure list; env | grep -o '^AWS_[A-Z_]*'"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "iam-denied",
        at: AT,
        shows: &[
            r"(?<parameter>/m8trx/[A-Za-z0-9_./-]+) not read(?:: |, again).*\(AccessDenied(?:Exception)?\).*perform: ssm:GetParameter",
        ],
        what: "the host's role may not read {parameter} (ssm:GetParameter)",
        remedy: &[
            Do(
                "`m8trx onboard` writes the role's policy again when it is not as it should be. See whether it is:",
            ),
            Run("aws iam get-role-policy --role-name {role} --policy-name m8trx-parameters"),
            Run(
                "aws iam simulate-principal-policy --policy-source-arn \"$(aws iam get-role --role-name {role} --query Role.Arn --output text)\" --action-names ssm:GetParameter --resource-arns \"$(aws ssm get-parameter --region {region} --name {parameter} --query Parameter.ARN --output text)\" --query 'EvaluationResults[].EvalDecision'",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "iam-denied",
        variant: "unsaid",
        at: AT,
        shows: &[r"(?<parameter>/m8trx/[A-Za-z0-9_./-]+) not read.*\(AccessDenied(?:Exception)?\)"],
        general: true,
        what: "AWS does not let the host read {parameter}",
        or: &["it may read it, and not decrypt it (kms:Decrypt)"],
        remedy: &[
            Do(
                "Which of them, and which policy: the message says it where it is whole. On the host:",
            ),
            Run(
                "aws ssm get-parameter --region {region} --name {parameter} --with-decryption --query Parameter.Version",
            ),
            Run("aws iam get-role-policy --role-name {role} --policy-name m8trx-parameters"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "parameter-missing",
        at: AT,
        shows: &[
            r"(?<parameter>/m8trx/[A-Za-z0-9_./-]+) not read.*\(Parameter(?:Version)?NotFound\)",
        ],
        what: "the parameter {parameter} does not exist in this region ({region})",
        remedy: &[
            Do("`m8trx onboard` stores what is missing before it launches. What this region has:"),
            Run(
                "aws ssm describe-parameters --region {region} --parameter-filters Key=Name,Option=BeginsWith,Values=/m8trx/ --query 'Parameters[].[Name,Type,LastModifiedDate]' --output table",
            ),
            Run("m8trx onboard {customer} --region {region}"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "parameter-malformed",
        at: AT,
        shows: &[
            r"the value of (?<parameter>/m8trx/(?:brain-url|[a-z0-9_]+/brain-key)) is not (?<form>.*)$",
        ],
        what: "the value of {parameter} is not {form}",
        remedy: &[
            Do(
                "Mostly a line break at its end. Put it again; a secret is asked for without being shown:",
            ),
            Run("m8trx params put {parameter} --region {region}"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "ssm-throttled",
        at: AT,
        shows: &[
            r"\((?:ThrottlingException|Throttling|TooManyRequestsException|RequestLimitExceeded)\)",
        ],
        what: "AWS limits how often this account reads parameters, and the host did not get through",
        remedy: &[
            Do(
                "Launch fewer hosts at a time, and this one again in some minutes; or raise the limit of this region (it costs money):",
            ),
            Run(
                "aws ssm update-service-setting --region {region} --setting-id /ssm/parameter-store/high-throughput-enabled --setting-value true",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "ssm-failing",
        at: AT,
        shows: &[
            r"/m8trx/\S+ not read.*\((?:InternalServerError|InternalFailure|ServiceUnavailable(?:Exception)?|50[0-9])\)",
        ],
        what: "SSM answers with an error of its own",
        remedy: &[Do(
            "Run user-data again in some minutes; what AWS says of the region: https://health.aws.amazon.com/health/status",
        )],
        ..Cause::NEW
    },
    Cause {
        name: "ssm-unreachable",
        variant: "cut",
        at: AT,
        shows: &[
            r"Connection was closed before we received a valid response from endpoint URL",
            r"not read.*(?:Connection aborted|Connection reset by peer|RemoteDisconnected|EOF occurred in violation of protocol)",
        ],
        what: "the host connects to SSM (ssm.{region}.amazonaws.com), and something on the way cuts the connection",
        remedy: &[
            Do(
                "A firewall or a filter of TLS names, mostly: it must let ssm.{region}.amazonaws.com through on TCP 443 without inspection; or give the VPC an endpoint for SSM. On the host:",
            ),
            Run(ASK_SSM),
            Run(ENDPOINTS),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "ssm-unreachable",
        at: AT,
        shows: &[
            r"/m8trx/\S+ not read.*Could not connect to the endpoint URL",
            r"/m8trx/\S+ not read.*(?:Connect|Read) timeout on endpoint URL",
            r"/m8trx/\S+ not read: *$",
            r"/m8trx/\S+ not read, again in \d+ s: no answer",
            r"/m8trx/\S+ not read: *no answer",
        ],
        what: "the host gets no connection to SSM (ssm.{region}.amazonaws.com)",
        remedy: &[
            Do(
                "Where the VPC has an endpoint for SSM, its security group must let the host in on TCP 443, and its policy must allow ssm:GetParameter; without one, the host needs a way out. What it meets, on the host:",
            ),
            Run(ASK_SSM),
            Run(ENDPOINTS),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "no-instance-profile",
        at: AT,
        shows: &[
            r"Unable to locate credentials",
            r"Error when retrieving credentials from iam-role",
            r"NoCredentials",
        ],
        what: "the host has no credentials: it was launched without an instance profile, or its role was deleted",
        or: &[
            "a proxy's settings on the image also hold for 169.254.169.254 (NO_PROXY is missing)",
        ],
        remedy: &[
            Do("Which of them: this names the profile, where it has one:"),
            Run(
                "aws ec2 describe-instances --region {region} --instance-ids {id} --query 'Reservations[].Instances[].IamInstanceProfile.Arn' --output text",
            ),
            Do(
                "Without one: `m8trx onboard` makes profile and role before it launches. To keep this host, give it the profile, and run user-data again on it:",
            ),
            Run(
                "aws ec2 associate-iam-instance-profile --region {region} --instance-id {id} --iam-instance-profile Name={role}",
            ),
            Do(
                "With one: on the host, `env | grep -i proxy`, and add 169.254.169.254 to NO_PROXY.",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "credentials-invalid",
        at: AT,
        shows: &[
            r"\((?:UnrecognizedClientException|InvalidClientTokenId|ExpiredTokenException|ExpiredToken)\)",
        ],
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
        ..Cause::NEW
    },
    Cause {
        name: "aws-cli-broken",
        at: AT,
        shows: &[
            r"/m8trx/\S+ not read.*Traceback \(most recent call last\)",
            r"/m8trx/\S+ not read.*(?<error>(?:Attribute|Import|ModuleNotFound|Syntax|Type)Error: .*)$",
            r"/m8trx/\S+ not read.*aws: (?:command )?not found",
            r"/m8trx/\S+ not read.*(?:No module named|DistributionNotFound|bad interpreter|cannot execute|GLIBC)",
        ],
        what: "the image's `aws` command is broken: its Python libraries do not fit together (pyOpenSSL and cryptography, botocore and urllib3, mostly)",
        remedy: &[
            Do(
                "On the host, see the exception at the end, and which libraries shadow the packaged ones (/usr/local):",
            ),
            Run(
                "aws --version; type -a aws python3; pip3 list --path /usr/local/lib/python3*/dist-packages 2>/dev/null",
            ),
            Do(
                "Remove those, install the package again, and run user-data again; for later hosts repair the image, or leave --ami out:",
            ),
            Run(
                "sudo pip3 uninstall -y awscli botocore urllib3 cryptography pyOpenSSL; sudo apt-get install --reinstall -y awscli python3-botocore python3-urllib3 python3-cryptography python3-openssl",
            ),
            Run("sudo bash /var/lib/cloud/instance/scripts/part-001"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "aws-cli-broken",
        variant: "unfit",
        at: &["packages"],
        shows: &[
            r"version [`']?GLIBC_(?<version>[0-9.]+)['’]? not (?:found|defined)",
            r"Failed to load Python shared library",
            r"Error loading Python lib",
            r"aws/(?:install|dist/aws): .*(?:Exec format error|cannot execute binary file)",
        ],
        what: "the AWS CLI, version 2, does not run on this image: its C library is too old (or not glibc), or its processor is another",
        remedy: &[
            Do(
                "Take an image with glibc 2.26 or later: leave --ami out for Ubuntu 22.04, whose archive has awscli. On the host:",
            ),
            Run("ldd --version | head -n 1; uname -m; cat /etc/os-release | head -n 2"),
        ],
        ..Cause::NEW
    },
];
