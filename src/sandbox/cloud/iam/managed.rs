//! The few of AWS's managed policies that matter to a host's role.
//!
//! Source: "AWS managed policy reference", shortened to the actions that the sandbox's cloud knows or names.

/// The document of a managed policy.
pub(super) fn policy(arn: &str) -> Option<&'static str> {
    Some(match arn.strip_prefix("arn:aws:iam::aws:policy/")? {
        // Grants `ssm:GetParameter` on everything: the reason never to attach it to a customer's host.
        "AmazonSSMManagedInstanceCore" => {
            r#"{"Version":"2012-10-17","Statement":[
            {"Effect":"Allow","Action":["ssm:DescribeAssociation","ssm:GetDeployablePatchSnapshotForInstance","ssm:GetDocument",
            "ssm:DescribeDocument","ssm:GetManifest","ssm:GetParameter","ssm:GetParameters","ssm:ListAssociations",
            "ssm:ListInstanceAssociations","ssm:PutInventory","ssm:PutComplianceItems","ssm:PutConfigurePackageResult",
            "ssm:UpdateAssociationStatus","ssm:UpdateInstanceAssociationStatus","ssm:UpdateInstanceInformation"],"Resource":"*"},
            {"Effect":"Allow","Action":["ssmmessages:CreateControlChannel","ssmmessages:CreateDataChannel",
            "ssmmessages:OpenControlChannel","ssmmessages:OpenDataChannel"],"Resource":"*"},
            {"Effect":"Allow","Action":["ec2messages:AcknowledgeMessage","ec2messages:DeleteMessage","ec2messages:FailMessage",
            "ec2messages:GetEndpoint","ec2messages:GetMessages","ec2messages:SendReply"],"Resource":"*"}]}"#
        }
        "AmazonSSMReadOnlyAccess" => {
            r#"{"Version":"2012-10-17","Statement":[
            {"Effect":"Allow","Action":["ssm:Describe*","ssm:Get*","ssm:List*"],"Resource":"*"}]}"#
        }
        "AdministratorAccess" => {
            r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#
        }
        _ => return None,
    })
}
