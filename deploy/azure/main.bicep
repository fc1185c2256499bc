// An App Service plan and a web app that runs the container image. deploy.sh in this folder fills in the parameters;
// docs/deploy/azure.md explains each parameter and its cost.
targetScope = 'resourceGroup'

@description('Name of the web app: the service will answer at https://NAME.azurewebsites.net, so it must be free in all of Azure.')
@minLength(2)
@maxLength(60)
param name string

@description('Image with its registry, by tag or (better) by digest: ghcr.io/OWNER/distilgpt2-api@sha256:…')
@minLength(3)
param image string

@description('Region.')
param location string = resourceGroup().location

@description('Size of the plan. B2, 2 cores and 3.5 GB of memory, is what the service is designed for.')
@allowed(['B1', 'B2', 'B3', 'P0v3', 'P1v3', 'P2v3'])
param sku string = 'B2'

@description('Machines in the plan. Each runs one container.')
@minValue(1)
@maxValue(10)
param numInstances int = 1

@description('Seconds for running requests to finish when the container stops.')
@minValue(1)
@maxValue(110)
param drainSeconds int = 20

@description('API keys, NAME:KEY, comma-separated. Empty: anyone who has the address can use the service.')
@secure()
param apiKeys string = ''

@description('User name for a private registry. Leave it empty for a public image.')
param registryUsername string = ''

@description('Password or token for a private registry.')
@secure()
param registryPassword string = ''

var port = '8000'
var registryHost = split(image, '/')[0]
var isAzureRegistry = endsWith(registryHost, '.azurecr.io')

var settings = {
  // The one port that App Service forwards; the platform also hands it to the container as PORT.
  WEBSITES_PORT: port
  // A new container gets traffic once this path answers with this status. By default any status counts.
  WEBSITE_WARMUP_PATH: '/readyz'
  WEBSITE_WARMUP_STATUSES: '200'
  // Seconds until Azure gives up on a container that isn't ready (230 by default, 1800 at most).
  WEBSITES_CONTAINER_START_TIME_LIMIT: '230'
  // Seconds from SIGTERM to SIGKILL (5 by default, 120 at most): the drain and time to exit.
  WEBSITES_CONTAINER_STOP_TIME_LIMIT: string(drainSeconds + 10)
  // No /home share mounted into the container: the service stores nothing.
  WEBSITES_ENABLE_APP_SERVICE_STORAGE: 'false'
  DISTILGPT2_DRAIN_S: string(drainSeconds)
  DISTILGPT2_LOG_FORMAT: 'json'
}

var registrySettings = empty(registryUsername) ? {} : {
  DOCKER_REGISTRY_SERVER_URL: 'https://${registryHost}'
  DOCKER_REGISTRY_SERVER_USERNAME: registryUsername
  DOCKER_REGISTRY_SERVER_PASSWORD: registryPassword
}

var keySettings = empty(apiKeys) ? {} : {
  DISTILGPT2_API_KEYS: apiKeys
}

resource plan 'Microsoft.Web/serverfarms@2024-11-01' = {
  name: '${name}-plan'
  location: location
  kind: 'linux'
  sku: {
    name: sku
    capacity: numInstances
  }
  properties: {
    reserved: true // Azure's term for Linux
  }
}

resource app 'Microsoft.Web/sites@2024-11-01' = {
  name: name
  location: location
  kind: 'app,linux,container'
  // An account that Azure manages, without a secret. With an Azure registry it pulls the image (role AcrPull).
  identity: {
    type: 'SystemAssigned'
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    clientAffinityEnabled: false // no sessions: any instance may answer
    siteConfig: {
      linuxFxVersion: 'DOCKER|${image}'
      acrUseManagedIdentityCreds: isAzureRegistry
      alwaysOn: true // or the container is unloaded after 20 idle minutes
      healthCheckPath: '/readyz'
      http20Enabled: true
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      ftpsState: 'Disabled'
    }
  }
}

// No password uploads by FTP, no password login to the deployment site.
resource noFtpPassword 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-11-01' = {
  parent: app
  name: 'ftp'
  properties: {
    allow: false
  }
}

resource noScmPassword 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-11-01' = {
  parent: app
  name: 'scm'
  properties: {
    allow: false
  }
}

resource appSettings 'Microsoft.Web/sites/config@2024-11-01' = {
  parent: app
  name: 'appsettings'
  properties: union(settings, registrySettings, keySettings)
}

output url string = 'https://${app.properties.defaultHostName}'
output principalId string = app.identity.principalId
