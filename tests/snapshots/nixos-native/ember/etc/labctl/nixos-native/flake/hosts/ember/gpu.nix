# made by labctl from lab.yaml: edit that instead
{
  hardware.graphics.enable = true;
}
